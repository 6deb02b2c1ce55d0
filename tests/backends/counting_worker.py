"""A far end for tests: counts up from 0, a number for each step, as many as `max_tokens` says.

The prompt tells what goes wrong: `refuse`, `fault` after three numbers, `die` after three numbers, `crash` at once.
"""

import os
import signal
from collections.abc import Iterator

from ore.backends.local.engine import End, Facts, Generation, Piece
from ore.backends.local.far_end import NearEnd, Place, main
from ore.backends.local.worker_server import serve_worker
from ore.errors import HTTPFault, InvalidRequest, ModelFailed, StartupError


class CountingWorker:
    def __init__(self) -> None:
        self._under_way: dict[int, tuple[Generation, int]] = {}
        self._steps = 0

    def facts(self) -> Facts:
        return Facts(context=1000)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if text == "how many?":
            return [*self._under_way, -1]
        return list(text.encode())

    def begin(self, key: int, generation: Generation) -> None:
        if generation.prompt == "refuse":
            raise InvalidRequest("I will not.", param="input", code="unwilling")
        self._under_way[key] = (generation, 0)

    def cancel(self, key: int) -> None:
        del self._under_way[key]

    def step(self) -> Iterator[tuple[int, Piece | HTTPFault]]:
        for key, (generation, count) in list(self._under_way.items()):
            if count == 3 and generation.prompt == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if generation.prompt == "crash":
                raise RuntimeError("a bug")
            if count == 3 and generation.prompt == "fault":
                del self._under_way[key]
                yield key, ModelFailed("It went wrong.")
                continue
            ends = count + 1 == generation.max_tokens
            end = End(reason="length", input_tokens=1, output_tokens=count + 1) if ends else None
            self._under_way[key] = (generation, count + 1)
            if ends:
                del self._under_way[key]
            yield key, Piece(text=f"{count} ", tokens=count + 1, end=end)

    @property
    def busy(self) -> bool:
        return bool(self._under_way)


class Parameters(Place, kw_only=True):
    fails: str = ""


def serve(parameters: Parameters, near_end: NearEnd) -> None:
    near_end.progress(1, 2)
    near_end.progress(2, 2)
    if parameters.fails:
        raise StartupError(parameters.fails)
    serve_worker(CountingWorker(), parameters.socket, parameters.api_key, near_end.ready)


if __name__ == "__main__":
    main(Parameters, serve)
