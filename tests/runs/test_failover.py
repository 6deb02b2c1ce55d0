"""Targets that fail are replaced: before a client has seen anything without a trace, afterwards as the alias says.

The client's view is held against that of an answer which nothing disturbed.
"""

import logging
from typing import Any

import anyio
import pytest
from run_kit import FINISH, HOLD, STEPS, HeldBackend, Played, check_run, world

from core.writing import RICH
from ore.backends.base import Capabilities, ModelRequest
from ore.backends.scripted import Step
from ore.core import deltas as d
from ore.errors import (
    DeadlineExceeded,
    HTTPFault,
    InvalidRequest,
    ModelFailed,
    NotFound,
    QueueFull,
    TooManyRequests,
    Unavailable,
)
from ore.protocol.decoding import JsonObject
from ore.routing import breaker, sampling
from ore.routing.route import MOST_NOTES, Passage
from ore.routing.router import Alias, Router
from ore.routing.rules import Rule
from ore.telemetry import Metrics

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

FAULTS: dict[str, HTTPFault] = {
    "unreachable": ModelFailed("Nobody answers.", code="upstream_unreachable"),
    "broken": ModelFailed("It broke.", code="upstream_failed"),
    "slow": DeadlineExceeded("Too slow.", code="upstream_timeout"),
    "overloaded": Unavailable("Overloaded.", retry_after=30),
    "limited": TooManyRequests("Too much.", retry_after=30),
    "no such model": NotFound("No such model.", code="model_not_found"),
    "no key": ModelFailed("No key.", code="upstream_unauthorized"),
    "too long": InvalidRequest("Too long.", code="context_length_exceeded"),
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff without waiting: what is tested is what happens, not when."""
    monkeypatch.setattr(sampling, "FIRST_BACKOFF", 0.0)


class Farm:
    """Several scripted targets, each a provider's of its own; the first may be an engine."""

    def __init__(self, *scripts: Any, local_first: bool = False, **rule: Any) -> None:
        self.backends = [HeldBackend({"m": script}) for script in scripts]
        names = [f"p{at}" for at in range(len(scripts))]
        there = dict(zip(names, self.backends, strict=True))
        engines = {"engine": there.pop("p0")} if local_first else {}
        targets = tuple("m" if local_first and name == "p0" else f"{name}/m" for name in names)
        aliases = {"any": Alias(targets=targets, rule=Rule(**rule))}
        self.metrics = Metrics()
        self.router = Router(engines, there, aliases, metrics=self.metrics)

    @property
    def asked(self) -> list[int]:
        return [len(backend.requests) for backend in self.backends]


async def played(farm: Farm, **fields: Any) -> Played:
    async with world(router=farm.router) as here:
        found = await here.play(**{"model": "any", **fields})
        if found.run.has_response:
            check_run(found, here)
        assert all(backend.active == 0 for backend in farm.backends)
        return found


def bare(final: JsonObject) -> Any:
    """An answer without ids."""
    return [{key: value for key, value in item.items() if key != "id"} for item in final["output"]]


async def undisturbed(steps: Any = STEPS) -> Any:
    return bare((await played(Farm(steps))).final)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_target_that_fails_before_its_first_word_is_replaced(fault: HTTPFault) -> None:
    """Refused at once, or failed when the client already has `response.created`: it sees one clean response."""
    expected = await undisturbed()
    for first in ([fault], [d.Text(""), fault], [d.Begin("message"), fault], [d.Begin("message")]):
        farm = Farm(first, STEPS)
        found = await played(farm)
        assert found.types.count("response.created") == 1
        assert found.final["status"] == "completed"
        assert bare(found.final) == expected
        assert farm.asked == [1, 1]


async def test_the_order_is_gone_through_to_the_end() -> None:
    """Whatever the targets before it do, the last one answers."""
    farm = Farm(*([fault] for fault in FAULTS.values()), STEPS)
    assert bare((await played(farm)).final) == await undisturbed()
    assert farm.asked == [1] * (len(FAULTS) + 1)


@pytest.mark.parametrize("step", range(1, len(RICH)))
async def test_after_the_first_word_a_failure_ends_the_response(step: int) -> None:
    """Unless the alias says otherwise: what clients have seen stays, marked incomplete, and nobody else is asked."""
    farm = Farm((*STEPS[:step], FAULTS["broken"]), STEPS)
    found = await played(farm)
    assert found.final["status"] == "failed"
    assert found.final["error"]["code"] == "upstream_failed"
    assert found.types[-2:] == ["error", "response.failed"]
    assert farm.asked == [1, 0]


HALF = "The answer is"


async def test_another_target_goes_on_where_the_alias_says_so() -> None:
    """It is shown what clients have seen, and what it says is one text with it."""
    farm = Farm([d.Text(HALF), FAULTS["broken"]], [d.Text(" 42."), FINISH], after_output="continue")
    found = await played(farm)
    assert found.final["status"] == "completed"
    (message,) = found.final["output"]
    assert message["content"][0]["text"] == "The answer is 42."
    shown: ModelRequest = farm.backends[1].requests[0]
    assert shown.items[-2]["content"][0]["text"] == HALF
    assert shown.items[-1]["role"] == "user"


@pytest.mark.parametrize(("limit", "left"), [(100, 40), (50, 1), (None, None)])
async def test_who_goes_on_may_say_what_is_left(limit: int | None, left: int | None) -> None:
    """The limit of the answer is one for all who give it; what was said is estimated, for nobody counted it."""
    said = [d.Reasoning("Hm. " * 20), d.Text("word" * 40), FAULTS["broken"]]
    farm = Farm(said, [d.Text("."), FINISH], after_output="continue")
    await played(farm, max_output_tokens=limit)
    assert [backend.requests[0].max_output_tokens for backend in farm.backends] == [limit, left]


async def test_reasoning_alone_is_begun_anew() -> None:
    """What the first one thought stays where it is; the next one thinks for itself."""
    thought = [d.Reasoning("Hm."), FAULTS["broken"]]
    farm = Farm(thought, [d.Reasoning("Ah."), d.Text("42."), FINISH], after_output="continue")
    found = await played(farm)
    assert [item["type"] for item in found.final["output"]] == ["reasoning", "reasoning", "message"]
    assert len(farm.backends[1].requests[0].items) == 1


@pytest.mark.parametrize(
    "said",
    [[d.Text("Hm"), d.ToolCall("c", "f")], [d.WholeItem({"type": "compaction", "encrypted_content": "e"})]],
    ids=["a call", "an item"],
)
async def test_nobody_goes_on_in_the_middle_of_a_call_or_after_an_item(said: list[Step]) -> None:
    """Half a call cannot be given to another model."""
    farm = Farm([*said, FAULTS["broken"]], STEPS, after_output="continue")
    assert (await played(farm)).final["status"] == "failed"
    assert farm.asked == [1, 0]


async def test_nobody_goes_on_in_the_middle_of_json() -> None:
    """What another model adds could not be held to the schema."""
    text = {"format": {"type": "json_object"}}
    farm = Farm([d.Text('{"a":'), FAULTS["broken"]], STEPS, after_output="continue")
    assert (await played(farm, text=text)).final["status"] == "failed"


async def test_when_nobody_can_go_on_the_first_failure_is_told() -> None:
    """Not that of whoever was asked to go on."""
    farm = Farm([d.Text(HALF), FAULTS["broken"]], [FAULTS["unreachable"]], after_output="continue", retries=0)
    final = (await played(farm)).final
    assert (final["status"], final["error"]["code"]) == ("failed", "upstream_failed")
    assert final["output"][0]["content"][0]["text"] == HALF


class Recovering:
    """A script that fails so many times, and then answers."""

    def __init__(self, times: int, fault: HTTPFault) -> None:
        self.left, self.fault = times, fault

    def __call__(self, _: ModelRequest) -> Any:
        self.left -= 1
        return [self.fault] if self.left >= 0 else STEPS


@pytest.mark.parametrize("times", [1, 2])
async def test_all_targets_are_tried_again(times: int) -> None:
    """As often as the rule says, when a failure may pass."""
    farm = Farm(Recovering(times, FAULTS["broken"]), Recovering(9, FAULTS["unreachable"]), retries=2)
    assert (await played(farm)).final["status"] == "completed"
    assert farm.asked == [times + 1, times]


async def test_a_single_target_is_tried_again_too() -> None:
    """Also one that no alias names."""
    farm = Farm(Recovering(1, FAULTS["broken"]))
    assert (await played(farm, model="p0/m")).final["status"] == "completed"


@pytest.mark.parametrize("name", ["no such model", "no key", "too long", "slow"])
async def test_what_does_not_pass_is_not_tried_again(name: str) -> None:
    """It would fail again, and what was too slow would take its whole time limit once more."""
    farm = Farm([FAULTS[name]])
    found = await played(farm)
    assert found.run.fault is FAULTS[name]
    assert farm.asked == [1]


async def test_who_is_not_asked_again_keeps_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry is taken when a target is asked again, not when it might have been."""
    monkeypatch.setattr(breaker, "MOST_RETRIES", 1.0)
    fault = [FAULTS["broken"]]
    first, second = iter([fault, STEPS, fault]), iter([fault, fault, STEPS])
    farm = Farm(lambda _: next(first), lambda _: next(second))
    async with world(router=farm.router) as here:
        for asked in ([2, 1], [3, 3]):
            assert (await here.play(model="any")).final["status"] == "completed"
            assert farm.asked == asked


async def test_an_engine_of_this_machine_is_not_tried_again() -> None:
    """It has a queue of its own, and says when it is full."""
    farm = Farm([FAULTS["limited"]], local_first=True)
    assert (await played(farm, model="m")).run.fault is FAULTS["limited"]
    assert farm.asked == [1]


async def test_retry_after_is_obeyed() -> None:
    """A provider that says when to come again is not asked before; a client that cannot wait is told."""
    farm = Farm([FAULTS["limited"]])
    async with world(router=farm.router) as here:
        first = await here.play(model="any")
        second = await here.play(model="any")
    assert first.run.fault is FAULTS["limited"]
    assert isinstance(second.run.fault, Unavailable)
    assert second.run.fault.headers["retry-after"] == "30"
    assert farm.asked == [1]


async def test_a_target_that_keeps_failing_is_left_alone() -> None:
    """After some failures the next one is asked first, and the broken one only when there is nobody else."""
    farm = Farm([FAULTS["broken"]], STEPS, retries=0)
    async with world(router=farm.router) as here:
        for _ in range(20):
            assert (await here.play(model="any")).final["status"] == "completed"
    assert farm.asked == [5, 20]


async def test_what_a_client_can_mend_is_told_first() -> None:
    """A request that one target refuses and another fails to answer is the client's to mend."""
    farm = Farm([FAULTS["too long"]], [FAULTS["broken"]], retries=0)
    assert (await played(farm)).run.fault is FAULTS["too long"]


async def test_a_client_that_leaves_while_targets_fail_ends_it_all() -> None:
    """Nobody else is asked for somebody who is gone."""
    farm = Farm([FAULTS["broken"]], STEPS)
    farm.backends[1].hold_entering = True
    async with world(router=farm.router) as here:
        run = here.supervisor.start("me", here.create(model="any"))
        await farm.backends[1].reached.wait()
        run.stop("disconnected")
        await run.ended()
    assert all(backend.active == 0 for backend in farm.backends)


async def test_what_happened_is_told_to_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    """In the metadata, for a request that has the key; in the log, for the operator. Nothing of the content."""
    farm = Farm([FAULTS["broken"]], STEPS)
    with caplog.at_level(logging.INFO, logger="ore.routing"):
        found = await played(farm, metadata={"ore.route": "", "mine": "kept"}, input="SECRET")
    told = "p0/m: failed, ModelFailed (upstream_failed); p1/m: answers"
    assert found.final["metadata"] == {"ore.route": told, "mine": "kept"}
    assert caplog.messages == [f"any: {told}"]
    assert (await played(Farm(STEPS), metadata={})).final["metadata"] == {}


async def test_spilling_over_and_coming_back() -> None:
    """While the local model is full the other one answers; when it is free again, it does."""
    farm = Farm(STEPS, STEPS, local_first=True, spill_waiting=0)
    local = farm.backends[0]
    local.slots = 1
    async with world(router=farm.router) as here:
        async with local.stream(ModelRequest(model="m", items=())):
            await here.play(model="any")
        assert farm.asked == [1, 1]
        await here.play(model="any")
    assert farm.asked == [2, 1]


async def test_metrics_count_what_happened() -> None:
    """By names that the operator gave: a client's name for a model is no label."""
    farm = Farm([FAULTS["broken"]], STEPS, local_first=True)
    await played(farm)
    await played(farm, model="p1/m")
    told = farm.metrics.exposition().decode()
    assert 'ore_route_failures_total{code="upstream_failed",model="any",target="m"} 1.0' in told
    assert 'ore_route_answers_total{model="any",target="p1"} 1.0' in told
    assert 'ore_route_answers_total{model="",target="p1"} 1.0' in told
    assert 'ore_target_first_delta_seconds_count{target="p1"} 2.0' in told


async def test_metrics_count_who_is_left_alone_right_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model of a provider has a breaker of its own; a pause that was asked for counts, and ends by itself."""
    scripts = {"slow": [Unavailable("Later.", retry_after=60)], "down": [FAULTS["broken"]], "well": STEPS}
    metrics = Metrics()
    aliases = {model: Alias(targets=(f"p/{model}",), rule=Rule(retries=0)) for model in scripts}
    router = Router({}, {"p": HeldBackend(scripts)}, aliases, metrics=metrics)
    async with world(router=router) as here:
        for model in ("well", "slow", *["down"] * 5, "well"):
            await here.play(model=model)
        assert 'ore_breaker_open{target="p"} 2.0' in metrics.exposition().decode()
        later = anyio.current_time() + 30
        monkeypatch.setattr(anyio, "current_time", lambda: later)
        assert 'ore_breaker_open{target="p"} 1.0' in metrics.exposition().decode()


async def test_a_request_that_is_wrong_says_nothing_about_a_target() -> None:
    """It may have been refused on this side, and nobody been asked: the failures before it still count."""
    told = iter([*[FAULTS["broken"]] * 4, FAULTS["too long"], FAULTS["broken"]])
    farm = Farm(lambda _: [next(told)], STEPS, retries=0)
    async with world(router=farm.router) as here:
        for _ in range(8):
            assert (await here.play(model="any")).final["status"] == "completed"
    assert farm.asked == [6, 8]


async def test_a_queue_of_ours_that_is_full_is_no_pause_for_others() -> None:
    """It moves on with every answer; only what a provider asks for itself is obeyed."""
    farm = Farm(Recovering(1, QueueFull("Full.", retry_after=60)))
    async with world(router=farm.router) as here:
        await here.play(model="p0/m")
        assert (await here.play(model="p0/m")).final["status"] == "completed"


async def test_one_that_breaks_off_each_time_is_left_alone() -> None:
    """It begins to answer, and never ends: the next one is asked first."""
    farm = Farm([d.Begin("message"), FAULTS["broken"]], STEPS, retries=0)
    async with world(router=farm.router) as here:
        for _ in range(20):
            assert (await here.play(model="any")).final["status"] == "completed"
    assert farm.asked == [5, 20]


@pytest.mark.parametrize("fault", [Unavailable("Down."), TooManyRequests("Pay.", code="insufficient_quota")])
async def test_what_does_not_come_back_in_a_second_is_left_alone(
    fault: HTTPFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy, one that is down is a 503 each time; one without money stays so."""
    monkeypatch.setattr(breaker, "LONGEST_OBEYED", 0.0)
    farm = Farm([fault], STEPS, retries=0)
    async with world(router=farm.router) as here:
        for _ in range(20):
            await here.play(model="any")
    assert farm.asked == [5, 20]


async def test_of_many_that_wait_one_probes_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its pause is over, a target that was down is asked once; the others follow its first word."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(sampling, "GLANCE", 0.01)
    farm = Farm(lambda _: [FAULTS["broken"]] if len(farm.backends[0].requests) <= 5 else [HOLD, *STEPS], retries=0)
    async with world(router=farm.router) as here:
        for _ in range(5):
            await here.play(model="any")
        runs = [here.supervisor.start("me", here.create(model="any")) for _ in range(10)]
        await farm.backends[0].reached.wait()
        await anyio.wait_all_tasks_blocked()
        assert farm.asked == [6]
        farm.backends[0].release.set()
        for run in runs:
            await run.ended()
    assert {run.status for run in runs} == {"completed"}


async def test_another_round_is_for_those_that_may_be_asked() -> None:
    """One that said when to come again is not asked before that, because another one failed too."""
    limited = TooManyRequests("Too much.", retry_after=4)
    farm = Farm([limited], Recovering(1, FAULTS["broken"]))
    assert (await played(farm)).final["status"] == "completed"
    assert farm.asked == [1, 2]


async def test_a_target_that_is_not_there_is_not_the_clients_to_mend() -> None:
    """It asked for an alias; what its targets are called is the operator's."""
    farm = Farm([FAULTS["no such model"]], [FAULTS["broken"]], retries=0)
    assert (await played(farm)).run.fault is FAULTS["broken"]


async def test_targets_that_all_lack_something_are_asked_all_the_same() -> None:
    """A tool that nobody has a use for is skipped, and is no reason to do without a second target."""
    farm = Farm([FAULTS["broken"]], STEPS)
    tools = [{"type": "image_generation"}, {"type": "web_search"}]
    farm.backends[0].capabilities = Capabilities(tool_types=("web_search",))
    found = await played(farm, tools=tools)
    assert found.final["status"] == "completed"
    assert found.run.warnings == ("tools of these types were skipped: image_generation, web_search",)


async def test_the_warnings_are_those_of_who_answers() -> None:
    """Not of who took the request and broke off: a reply that is not streamed has them in its head."""
    farm = Farm([d.Begin("message"), FAULTS["broken"]], STEPS)
    farm.backends[0].capabilities = Capabilities(tool_types=("web_search",))
    found = await played(farm, tools=[{"type": "image_generation"}, {"type": "web_search"}])
    assert found.run.warnings == ("tools of these types were skipped: image_generation, web_search",)


async def test_nothing_of_a_beginning_that_nobody_saw_is_left() -> None:
    """The phase of a message that one target began is not that of the message of another."""
    farm = Farm([d.Begin("message", phase="commentary"), FAULTS["broken"]], [d.Text("42."), FINISH])
    (message,) = (await played(farm)).final["output"]
    assert "phase" not in message


async def test_a_context_is_shortened_for_who_found_it_too_long() -> None:
    """By its own window and its own count, whoever was asked after it."""
    few = Capabilities(context_window=4)
    too_long = FAULTS["too long"]
    farm = Farm(lambda request: [too_long] if len(request.items) > 3 else STEPS, [FAULTS["broken"]], retries=0)
    farm.backends[0].capabilities = few
    turns = [{"role": role, "content": "x"} for _ in range(4) for role in ("user", "assistant")]
    found = await played(farm, truncation="auto", input=[*turns, {"role": "user", "content": "y"}])
    assert found.final["status"] == "completed"
    assert farm.asked == [2, 1]


async def test_a_way_that_led_nowhere_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    """Most of all then."""
    with caplog.at_level(logging.INFO, logger="ore.routing"):
        await played(Farm([FAULTS["broken"]], [FAULTS["unreachable"]], retries=0))
    told = "p0/m: failed, ModelFailed (upstream_failed); p1/m: failed, ModelFailed (upstream_unreachable)"
    assert caplog.messages == [f"any: {told}"]


async def test_a_code_that_a_provider_made_up_is_no_label() -> None:
    """It might be another one each time."""
    farm = Farm([InvalidRequest("No.", code="trace-8f3a")])
    await played(farm)
    assert "trace-8f3a" not in farm.metrics.exposition().decode()


async def test_what_is_remembered_of_a_way_is_bounded() -> None:
    """A background run may ask two full targets for hours; how it went on in the end is what matters."""
    passage = Passage()
    for number in range(1000):
        passage.note(f"p{number % 2}/m", "failed, TooManyRequests (rate_limit_exceeded)")
    assert len(passage.notes) == MOST_NOTES


async def test_a_background_run_does_not_wait_for_money() -> None:
    """A queue moves on, and a quota that is used up does not."""
    broke = TooManyRequests("Pay.", code="insufficient_quota")
    farm = Farm([broke])
    async with world(router=farm.router) as here:
        run = here.supervisor.start("me", here.create(model="any", background=True, store=True))
        await run.ended()
    assert run.fault is broke
    assert farm.asked == [1]


@pytest.mark.parametrize("after_output", ["fail", "continue"])
async def test_a_summary_that_breaks_off_is_made_by_another(after_output: str) -> None:
    """No client sees a word of it: nothing of what was said first is left, or shown to the next one."""
    farm = Farm([d.Text("Half a "), FAULTS["broken"]], [d.Text("We talked."), FINISH], after_output=after_output)
    turns = [{"role": role, "content": "x"} for _ in range(4) for role in ("user", "assistant")]
    async with world(router=farm.router) as here:
        found = await here.play(model="any", input=[*turns, {"type": "compaction_trigger"}])
        assert found.final["status"] == "completed"
        asked, other = (backend.requests[0].items for backend in farm.backends)
        assert len(asked) == len(other)
        await here.play(model="p1/m", input=[*found.final["output"], {"role": "user", "content": "Go on."}])
    shown = [part["text"] for item in farm.backends[1].requests[-1].items for part in item["content"]]
    assert shown[-2].endswith("We talked.")
    assert not any("Half" in text for text in shown)


async def test_a_context_is_counted_by_a_target_that_can() -> None:
    """Before a context is compacted it is counted; a target that is down must not end the run there."""

    async def is_down(_: ModelRequest) -> int:
        raise FAULTS["unreachable"]

    farm = Farm([FAULTS["unreachable"]], STEPS)
    farm.backends[0].count_tokens = is_down  # type: ignore[method-assign]
    managed = [{"type": "compaction", "compact_threshold": 1000}]
    turns = [{"role": role, "content": "x"} for _ in range(4) for role in ("user", "assistant")]
    found = await played(farm, input=[*turns, {"role": "user", "content": "y"}], context_management=managed)
    assert found.final["status"] == "completed"
