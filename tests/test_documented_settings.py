"""The settings in the documents are good: each example is read by the loader that reads everybody's file."""

import re
from pathlib import Path

import pytest

from ore.settings import KINDS, PROVIDER_VARIABLES, ProviderSettings, load, resolve_models

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/classical.md", "docs/providers.md")


def examples(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("page", "text"), [(page, text) for page in PAGES for text in examples(page)])
def test_the_examples_can_be_loaded(tmp_path: Path, page: str, text: str) -> None:
    """Each alone, in an empty environment, as it stands there."""
    file = tmp_path / "ore.toml"
    file.write_text(text, "utf-8")
    loaded = load(file, {"HOME": str(tmp_path)}, {})
    assert {origin.kind for origin in loaded.origins.values()} == {"default", "file"}
    resolve_models(loaded.settings)


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_examples(page: str) -> None:
    """So that the test above has something to read."""
    assert examples(page)


def test_the_page_of_providers_says_what_is_so() -> None:
    """Kinds with their addresses, variables, limits with their defaults."""
    page = (ROOT / "docs/providers.md").read_text("utf-8")
    for name, kind in KINDS.items():
        assert re.search(rf"^\| `{name}` \| [\w ]+ \| .*{re.escape(kind.base_url or 'is needed')}", page, re.MULTILINE)
    for variable in PROVIDER_VARIABLES:
        assert f"| `{variable}` |" in page
    default = ProviderSettings(kind="openai")
    for key in ("connect_timeout", "first_byte_timeout", "idle_timeout", "max_concurrent", "queue"):
        assert re.search(rf"^\| `{key}` \| {getattr(default, key):g}( s)? \|", page, re.MULTILINE)
