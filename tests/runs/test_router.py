"""The router: from a client's name to a target, and the words of a refusal."""

from typing import Any

import anyio
import pytest
from run_kit import HeldBackend

from ore.backends.base import Model
from ore.errors import InvalidRequest, NotFound, StartupError
from ore.routing.router import Alias, Router
from ore.routing.rules import Rule

pytestmark = pytest.mark.anyio


def backends(**models: str) -> dict[str, HeldBackend]:
    return {name: HeldBackend({model: [] for model in offered.split()}) for name, offered in models.items()}


async def test_a_name_leads_to_its_backend() -> None:
    """Each model is served by the backend that offers it; of two that do, by the first."""
    there = backends(one="a b", two="b c")
    router = Router(there)
    for name, backend in (("a", "one"), ("b", "one"), ("c", "two")):
        target = (await router.route(name)).first
        assert target.backend is there[backend]
        assert target.model.id == name


async def test_models_are_listed_in_a_stable_order() -> None:
    """`GET /models` shows them as they were configured."""
    assert [model.id for model in await Router(backends(one="b a", two="c")).models()] == ["b", "a", "c"]


async def test_a_default_stands_in_for_a_missing_name() -> None:
    """Without a name the default is taken, and without a default the refusal names what there is."""
    there = backends(one="a b")
    assert (await Router(there, default_model="b").route(None)).first.model.id == "b"
    with pytest.raises(InvalidRequest) as caught:
        await Router(there).route(None)
    assert caught.value.code == "missing_required_parameter"
    assert caught.value.param == "model"
    assert caught.value.message == "Missing required parameter: 'model'. Configured: 'a', 'b'."


async def test_an_unknown_name_is_a_404_with_the_nearest() -> None:
    """The sentence that clients match on comes first, then what to do."""
    with pytest.raises(NotFound) as caught:
        await Router(backends(one="llama-3 qwen-3")).route("lama-3")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert caught.value.message.startswith("The requested model 'lama-3' does not exist. Did you mean 'llama-3'?")
    assert "Configured: 'llama-3', 'qwen-3'." in caught.value.message


async def test_a_refusal_stays_short() -> None:
    """Neither a long name nor a long list makes a long message."""
    with pytest.raises(NotFound) as caught:
        await Router(backends(one=" ".join(f"model-{n}" for n in range(500)))).route("x" * 10_000)
    assert len(caught.value.message) < 1000


async def test_nothing_configured() -> None:
    """A router without models says so."""
    with pytest.raises(NotFound, match="Configured: none"):
        await Router({}).route("a")


async def test_all_are_stopped_whatever_one_of_them_does() -> None:
    """What it raises is heard of afterwards."""
    stopped = list[str]()

    class Stubborn(HeldBackend):
        async def stop(self) -> None:
            stopped.append(next(iter(self._scripts)))
            if stopped[-1] == "b":
                raise OSError("it does not end")

    there = {name: Stubborn({name: []}) for name in "abc"}
    with pytest.raises(OSError, match="does not end"):
        await Router({"a": there["a"]}, {"b": there["b"], "c": there["c"]}).stop()
    assert sorted(stopped) == ["a", "b", "c"]


async def test_health_is_told_by_backend() -> None:
    """Each backend answers for itself, under its own name."""
    assert set(await Router(backends(one="a", two="b")).health()) == {"one", "two"}


def hybrid(**more: Any) -> Router:
    """One engine, one provider, and aliases of both."""
    there = backends(one="tiny", far="big org/huge")
    aliases = {"smart": Alias(targets=("tiny", "far/big")), **more.pop("aliases", {})}
    return Router({"one": there["one"]}, {"far": there["far"]}, aliases, **more)


async def test_a_providers_models_have_its_name_before_them() -> None:
    """They are listed so, asked for so, and the provider is asked for its own name; a slash may be part of that."""
    router = hybrid()
    assert [model.id for model in await router.models()] == ["tiny", "smart", "far/big", "far/org/huge"]
    target = (await router.route("far/org/huge")).first
    assert (target.name, target.model.id, target.local) == ("far/org/huge", "org/huge", False)


async def test_a_model_that_a_provider_lists_can_be_asked_for_by_its_own_name() -> None:
    """Code that was written for that provider says no more."""
    assert (await hybrid().route("big")).first.name == "far/big"
    with pytest.raises(NotFound):
        await hybrid().route("far/unknown")


async def test_a_model_that_is_known_waits_for_no_provider() -> None:
    """Once it is known whose it is, others that are slow to list theirs keep nobody waiting."""

    class Slow(HeldBackend):
        hangs = False

        async def models(self) -> list[Model]:
            if self.hangs:
                await anyio.sleep_forever()
            return await super().models()

    slow, there = Slow({"other": []}), backends(far="big")
    router = Router({}, {"slow": slow, **there})
    await router.models()
    slow.hangs = True
    with anyio.fail_after(5):
        assert (await router.route("big")).first.name == "far/big"


async def test_no_provider_is_asked_only_to_word_a_refusal() -> None:
    """A request without a model is refused at once, whoever is slow to list theirs."""

    class Asked(HeldBackend):
        async def models(self) -> list[Model]:
            raise AssertionError("nobody needs to know")

    with pytest.raises(InvalidRequest, match="Configured: 'tiny', 'far/\\*'"):
        await Router(backends(one="tiny"), {"far": Asked({"big": []})}).route(None)


async def test_of_two_providers_with_a_model_the_first_is_asked() -> None:
    """As they stand in the configuration."""
    assert (await Router({}, backends(one="big", two="big")).route("big")).first.name == "one/big"


async def test_an_alias_stands_for_its_targets() -> None:
    """In their order, and with its rule; it may be the default."""
    route = await hybrid(default_model="smart").route(None)
    assert route.name == "smart"
    assert [(target.name, target.local) for target in route.targets] == [("tiny", True), ("far/big", False)]


async def test_an_alias_of_what_there_is_not_is_an_error_at_the_start() -> None:
    """Not when the first client comes."""
    router = hybrid(aliases={"broken": Alias(targets=("tiny", "far/none"))})
    with pytest.raises(StartupError, match="broken has the target far/none"):
        await router.start()


class Wordy:
    """A classifier for tests: texts of more than three words are hard."""

    async def classify(self, text: str) -> str:
        return "hard" if len(text.split()) > 3 else "easy"


@pytest.mark.parametrize(("text", "first"), [("Hi there", "tiny"), ("Prove it for all n", "far/big")])
async def test_a_classifier_picks_the_target_that_comes_first(text: str, first: str) -> None:
    """By what the user said last; the others stay behind it, for when it fails."""
    picked = Alias(targets=("tiny", "far/big"), classifier="wordy", picks={"easy": "tiny", "hard": "far/big"})
    router = hybrid(aliases={"picked": picked}, classifiers={"wordy": Wordy()})
    said = [{"role": "user", "content": [{"type": "input_text", "text": text}]}, {"type": "reasoning", "summary": []}]
    route = await router.route("picked", said)
    assert route.first.name == first
    assert len(route.targets) == 2


async def test_what_a_classifier_picks_goes_before_any_other_order() -> None:
    """Weights are those of the targets as they were named, and are for texts that it has no pick for."""
    rule = Rule(order="weighted", weights=(9, 1))
    picked = Alias(targets=("tiny", "far/big"), rule=rule, classifier="wordy", picks={"hard": "far/big"})
    router = hybrid(aliases={"picked": picked}, classifiers={"wordy": Wordy()})
    hard = [{"role": "user", "content": [{"type": "input_text", "text": "Prove it for all n"}]}]
    route = await router.route("picked", hard)
    assert (route.first.name, route.rule.order) == ("far/big", "ordered")
    easy = await router.route("picked")
    assert ([target.name for target in easy.targets], easy.rule) == (["tiny", "far/big"], rule)


async def test_a_providers_name_alone_is_no_model() -> None:
    """The refusal says how its models are asked for."""
    with pytest.raises(NotFound, match="Configured: 'far/MODEL'"):
        await hybrid().route("far")
