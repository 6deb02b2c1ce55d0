"""What `ore bench` draws: a table and bars in the terminal, and the same bars as an SVG file. Measures nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from ore.commands.bench_measures import Measured
from ore.commands.models import human_size

if TYPE_CHECKING:
    from rich.console import Console

BAR: Final = 40
"""Characters of the longest bar."""


def draw(console: "Console", title: str, measured: Sequence[Measured]) -> None:
    """The table, then the bars."""
    from rich.table import Table

    counts = sorted({count for each in measured for count in each.decode})
    headings = ["engine", "load s", "first token s", "again s", "prefill tok/s"]
    headings += [f"{count} cl. tok/s" for count in counts] + ["memory", "bandwidth"]
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for each in measured:
        table.add_row(*_cells(each, counts))
    console.print(table)
    for each in measured:
        if each.problem is not None:
            console.print(f"{each.engine}: {each.problem}", markup=False)
    for line in bars(measured):
        console.print(line, markup=False, highlight=False)


def _cells(each: Measured, counts: Sequence[int]) -> list[str]:
    share = "-" if each.bandwidth_share is None else f"{each.bandwidth_share:.0%}"
    seconds = [_number(value, 2) for value in (each.load_seconds, each.cold_seconds, each.cached_seconds)]
    decode = [_number(each.decode.get(count), 0) for count in counts]
    return [each.engine, *seconds, _number(each.prefill, 0), *decode, human_size(each.resident), share]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def bars(measured: Sequence[Measured]) -> list[str]:
    """A bar for each engine and number of clients, as long as its tokens per second."""
    rows = _rows(measured)
    most = max((value for _, _, value in rows), default=0.0)
    width = max((len(label) for _, label, _ in rows), default=0)
    return [f"{label:<{width}}  {'█' * max(1, round(BAR * value / most))} {value:,.0f}" for _, label, value in rows]


def _rows(measured: Sequence[Measured]) -> list[tuple[int, str, float]]:
    """The place of the engine, a label, tokens per second; by the number of clients."""
    found = [
        (count, place, f"{count:>3} x {each.engine}", value)
        for place, each in enumerate(measured)
        for count, value in each.decode.items()
        if value > 0
    ]
    return [(place, label, value) for _, place, label, value in sorted(found)]


COLOURS: Final = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3")
LABELS: Final = 150
PLOT: Final = 420
"""Pixels of the longest bar."""
LINE: Final = 24


def svg(title: str, measured: Sequence[Measured]) -> str:
    """The bars as a picture: tokens per second."""
    rows = _rows(measured)
    most = max((value for _, _, value in rows), default=1.0)
    width, height = LABELS + PLOT + 80, LINE * (len(rows) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="{LINE * 0.8:.0f}" font-weight="bold">{escape(title)}: tokens per second</text>',
    ]
    for number, (place, label, value) in enumerate(rows, 1):
        top, length = number * LINE + 4, PLOT * value / most
        colour = COLOURS[place % len(COLOURS)]
        lines += [
            f'<text x="{LABELS - 8}" y="{top + 14}" text-anchor="end">{escape(label.strip())}</text>',
            f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{LINE - 6}" fill="{colour}"/>',
            f'<text x="{LABELS + length + 6:.1f}" y="{top + 14}">{value:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
