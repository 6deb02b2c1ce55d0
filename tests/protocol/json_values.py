"""Hypothesis strategies for JSON that clients might send. Not a test by itself."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS |= st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", max_size=3), inner, max_size=3)
)


def words(*known: str) -> st.SearchStrategy[Any]:
    """Mostly words that mean something to the wire, sometimes anything at all."""
    return st.sampled_from(known) | ANY_JSON


def objects(keys: Sequence[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the keys that the wire knows, filled with anything."""
    return st.dictionaries(st.sampled_from(keys) | st.text("xy", max_size=2), values, max_size=7)
