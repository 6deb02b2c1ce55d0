"""Server-sent events as they are really sent: any line ends, any cuts, and bounded work."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.backends.event_stream import EventReader, EventTooLong

PIECES = st.sampled_from([b"data: a", b"data:", b"data: {}", b": ping", b"event: x", b"\n", b"\r", b"\r\n", b"\n\n"])


def read(*chunks: bytes) -> list[bytes]:
    reader = EventReader()
    return [*(data for chunk in chunks for data in reader.feed(chunk)), *reader.end()]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_events_of_every_line_end(end: bytes) -> None:
    """Several lines of data are one event; comments and events without data are none."""
    lines = [b"\xef\xbb\xbfdata: a", b"data: b", b"", b": ping", b"", b"event: x", b"", b"data:c", b"", b""]
    assert read(end.join(lines)) == [b"a\nb", b"c"]


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_cuts_change_nothing(pieces: list[bytes], cuts: list[int]) -> None:
    """However a stream is cut into chunks, its events are the same."""
    stream = b"".join(pieces)
    ends = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    assert read(*(stream[a:b] for a, b in pairwise(ends))) == read(*([stream] if stream else []))


@given(st.lists(PIECES, max_size=30))
def test_byte_by_byte(pieces: list[bytes]) -> None:
    """Neither is it lost when a line end is cut in two."""
    stream = b"".join(pieces)
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == read(*([stream] if stream else []))


@pytest.mark.parametrize("stream", [b"data: a\n\n", b"data: a\r\n\r\n"], ids=["LF", "CRLF"])
def test_an_event_is_told_as_soon_as_it_is_whole(stream: bytes) -> None:
    """Not with the next one, wherever it is cut; only a lone CR at its end may be half of a line end."""
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            reader = EventReader()
            early = [*reader.feed(stream[:first]), *reader.feed(stream[first:second])]
            assert [*early, *reader.feed(stream[second:])] == [b"a"]
    reader = EventReader()
    assert [reader.feed(stream[at : at + 1]) for at in range(len(stream))][-1] == [b"a"]


def test_an_event_of_many_lines_costs_what_its_bytes_cost() -> None:
    """A provider must not be able to stop this server with one event in many small pieces."""
    reader, began = EventReader(), time.process_time()
    for _ in range(100_000):
        assert reader.feed(b"data: abcdefgh\n") == []
    (data,) = reader.feed(b"\n")
    assert len(data) == 9 * 100_000 - 1
    assert time.process_time() - began < 5


def test_an_event_without_end_is_refused() -> None:
    """Memory is bounded."""
    reader = EventReader(max_event_bytes=100)
    with pytest.raises(EventTooLong):
        for _ in range(11):
            reader.feed(b"data: abc\n")
