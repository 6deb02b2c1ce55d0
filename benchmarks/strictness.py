"""Does each engine hold a model with random weights to schemas, grammars and choices of tools? The whole kit.

    python -m benchmarks.strictness [--engines llama_cpp,candle] [--schemas 300] [--grammars 100] [--thoughts 40]

Prints, per engine, how much was asked, and how much was valid, refused (a 400 that names why, before the first token),
unfinished (the limit of tokens came first) and invalid, which must be none: those are printed in full. Every answer is
judged by jsonschema-rs or by matchers of the kit's own. Engines that are not installed are said to be missing.
"""

import asyncio
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engines.engine_rows import ROWS, Wanted
from engines.strictness import Case, Outcome, counted, grammar_cases, outcomes, sample, schema_cases

VERDICTS = ("valid", "refused", "unfinished", "invalid")


@click.command(help=__doc__)
@click.option("--engines", default=",".join(ROWS), show_default=True)
@click.option("--schemas", default=300, show_default=True)
@click.option("--grammars", default=100, show_default=True)
@click.option("--thoughts", default=40, show_default=True, help="How many of them again, after a think block.")
@click.option("--seed", default=0, show_default=True)
def main(engines: str, schemas: int, grammars: int, thoughts: int, seed: int) -> None:
    asked = {"schemas": schema_cases(schemas, seed), "grammars": grammar_cases(grammars, seed)}
    everything = [case for cases in asked.values() for case in cases]
    table = Table(title="Strictness on random weights")
    for heading in ("engine", "what", "asked", *VERDICTS, "seconds"):
        table.add_column(heading, justify="left" if heading in ("engine", "what") else "right")
    wrong: list[Outcome] = []
    for name in engines.split(","):
        if find_spec(ROWS[name].package) is None:
            table.add_row(name, "not installed")
            continue
        kinds = [(what, cases, Wanted()) for what, cases in asked.items()]
        for control in (False, True):
            what = f"after a thought, markers {'are tokens' if control else 'are text'}"
            kinds.append(
                (what, sample(everything, min(thoughts, len(everything))), Wanted(thinks=True, control=control))
            )
        for what, cases, wanted in kinds:
            begun = time.monotonic()
            found = asyncio.run(_held(name, wanted, cases))
            wrong += [each for each in found if each.verdict == "invalid"]
            counts = [str(counted(found)[verdict]) for verdict in VERDICTS]
            table.add_row(name, what, str(len(found)), *counts, f"{time.monotonic() - begun:.0f}")
    for each in wrong:
        print(f"INVALID {each.case.about}\n -> {each.detail}\n")
    Console(width=max(110, Console().width)).print(table)
    sys.exit(bool(wrong))


async def _held(name: str, wanted: Wanted, cases: list[Case]) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        model = ROWS[name].make(Path(folder), wanted)
        await model.start()
        try:
            return await outcomes(model, cases)
        finally:
            await model.stop()


if __name__ == "__main__":
    main()
