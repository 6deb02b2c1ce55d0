"""The Python code in the documents runs as it stands there, against the bundled model."""

import re
from pathlib import Path

import pytest

from servers import OreProcess

pytestmark = [
    pytest.mark.engine,
    # the openai package opens sockets in the way that websockets 17 is taking leave of
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
WRITTEN_FOR = "http://127.0.0.1:8000"


@pytest.mark.parametrize("page", ["README.md", "docs/state.md"])
def test_the_examples_run(tiny: OreProcess, page: str) -> None:
    """One after the other, each with what those before it have made, as somebody would who types them in."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    assert WRITTEN_FOR in blocks[0]
    known: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block.replace(WRITTEN_FOR, tiny.url), page, "exec"), known)  # noqa: S102
