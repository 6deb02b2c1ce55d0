"""Progress of downloads: bars on a terminal, few plain lines elsewhere."""

import io

from ore.commands.progress import download_progress

MIB = 1024 * 1024


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_at_most_one_line_for_five_percent() -> None:
    """A thousand reports are 21 lines, the first and the last among them."""
    stream = io.StringIO()
    with download_progress(stream) as report:
        for done in range(1001):
            report("m.gguf", done * MIB, 1000 * MIB)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[0] == "m.gguf    0 %  0 B of 1000.0 MiB"
    assert lines[-1] == "m.gguf  100 %  1000.0 MiB of 1000.0 MiB"


def test_elsewhere_without_a_total_a_line_for_64_mib() -> None:
    """A server need not say how large a file is."""
    stream = io.StringIO()
    with download_progress(stream) as report:
        for done in range(201):
            report("m.gguf", done * MIB, None)
    assert stream.getvalue().splitlines() == [
        "m.gguf  0 B",
        "m.gguf  64.0 MiB",
        "m.gguf  128.0 MiB",
        "m.gguf  192.0 MiB",
    ]


def test_on_a_terminal_bars_are_gone_when_the_downloads_are_done() -> None:
    """While a server runs, nothing keeps drawing on the terminal it logs to; a later download draws again."""
    stream = Terminal()
    with download_progress(stream) as report:
        assert stream.getvalue() == ""
        report("[red].gguf", 0, 10)
        report("[red].gguf", 10, 10)
        after = stream.getvalue()
        assert "[red].gguf" in after
        assert after.endswith("\x1b[?25h")  # the cursor is back
        report("b.gguf", 5, 10)
    assert "b.gguf" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h")
