"""The router: from a client's name to a target, and the words of a refusal."""

import pytest
from run_kit import HeldBackend

from ore.errors import InvalidRequest, NotFound
from ore.routing.router import Router

pytestmark = pytest.mark.anyio


def backends(**models: str) -> dict[str, HeldBackend]:
    return {name: HeldBackend({model: [] for model in offered.split()}) for name, offered in models.items()}


async def test_a_name_leads_to_its_backend() -> None:
    """Each model is served by the backend that offers it; of two that do, by the first."""
    there = backends(one="a b", two="b c")
    router = Router(there)
    for name, backend in (("a", "one"), ("b", "one"), ("c", "two")):
        target = await router.choose(name)
        assert target.backend is there[backend]
        assert target.model.id == name


async def test_models_are_listed_in_a_stable_order() -> None:
    """`GET /models` shows them as they were configured."""
    assert [model.id for model in await Router(backends(one="b a", two="c")).models()] == ["b", "a", "c"]


async def test_a_default_stands_in_for_a_missing_name() -> None:
    """Without a name the default is taken, and without a default the refusal names what there is."""
    there = backends(one="a b")
    assert (await Router(there, default_model="b").choose(None)).model.id == "b"
    with pytest.raises(InvalidRequest) as caught:
        await Router(there).choose(None)
    assert caught.value.code == "missing_required_parameter"
    assert caught.value.param == "model"
    assert caught.value.message == "Missing required parameter: 'model'. Configured: 'a', 'b'."


async def test_an_unknown_name_is_a_404_with_the_nearest() -> None:
    """The sentence that clients match on comes first, then what to do."""
    with pytest.raises(NotFound) as caught:
        await Router(backends(one="llama-3 qwen-3")).choose("lama-3")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert caught.value.message.startswith("The requested model 'lama-3' does not exist. Did you mean 'llama-3'?")
    assert "Configured: 'llama-3', 'qwen-3'." in caught.value.message


async def test_a_refusal_stays_short() -> None:
    """Neither a long name nor a long list makes a long message."""
    with pytest.raises(NotFound) as caught:
        await Router(backends(one=" ".join(f"model-{n}" for n in range(500)))).choose("x" * 10_000)
    assert len(caught.value.message) < 1000


async def test_nothing_configured() -> None:
    """A router without models says so."""
    with pytest.raises(NotFound, match="Configured: none"):
        await Router({}).choose("a")


async def test_health_is_told_by_backend() -> None:
    """Each backend answers for itself, under its own name."""
    assert set(await Router(backends(one="a", two="b")).health()) == {"one", "two"}
