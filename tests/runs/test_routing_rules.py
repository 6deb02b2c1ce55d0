"""The order in which targets are asked, and what is said of those that are passed over."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from ore.backends.base import Capabilities, Load, Model, ModelRequest
from ore.backends.scripted import ScriptedBackend
from ore.core.callable_tools import TOOL_TYPES
from ore.routing.rules import Rule, Seen, Target, choices, needs_of

BACKEND = ScriptedBackend({})
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}


def target(name: str, *, local: bool = True, **capabilities: Any) -> Target:
    return Target(
        name=name, backend=BACKEND, model=Model(id=name, capabilities=Capabilities(**capabilities)), local=local
    )


def asking(*parts: Any, **more: Any) -> ModelRequest:
    return ModelRequest(model="m", items=({"type": "message", "role": "user", "content": list(parts)},), **more)


def order(targets: list[Target], rule: Rule, request: ModelRequest | None = None, **seen: Seen) -> list[str]:
    found = choices(
        targets, rule, needs_of(request or asking()), {each.name: seen.get(each.name, Seen()) for each in targets}
    )
    return [f"{choice.target.name} {choice.against}".strip() for choice in found]


def test_the_first_comes_first() -> None:
    """Nothing speaks against anybody, so the operator's order holds."""
    assert order([target("a"), target("b")], Rule()) == ["a", "b"]


NEEDS = {
    "images": (asking(IMAGE), {"images": True}, "it cannot see images"),
    "a hosted tool": (
        asking(tools=({"type": "image_generation"},)),
        {"tool_types": (*TOOL_TYPES, "image_generation")},
        "it has no use for tools of type image_generation",
    ),
    "logprobs": (asking(top_logprobs=0), {"logprobs": True}, "it gives no logprobs"),
    "room": (
        asking({"type": "input_text", "text": "word " * 1000}),
        {"context_window": 8000},
        "its context holds 1000 tokens, and the request has about 1250",
    ),
}


@pytest.mark.parametrize(("request_", "able", "why"), NEEDS.values(), ids=NEEDS)
def test_who_cannot_is_not_asked(request_: ModelRequest, able: dict[str, Any], why: str) -> None:
    """What a request needs puts a target that lacks it last, with the reason."""
    small = target("small", context_window=1000)
    assert order([small, target("able", **able)], Rule(), request_) == ["able", f"small {why}"]


def test_tools_and_schemas_are_needs_too() -> None:
    """For models that know neither."""
    bare = target("bare", tools=False, json_schema=False)
    tools = asking(tools=({"type": "function", "name": "f", "parameters": None},))
    schema = asking(text_format={"type": "json_schema", "name": "n", "schema": {}})
    assert order([bare, target("b")], Rule(), tools)[1] == "bare it cannot call tools"
    assert order([bare, target("b")], Rule(), schema)[1] == "bare it cannot be held to a schema"


FULL = Load(running=4, waiting=3, slots=4, wait_seconds=2.0)


@pytest.mark.parametrize(
    ("rule", "load", "against"),
    [
        (Rule(spill_waiting=3), FULL, "4 requests run there and 3 wait"),
        (Rule(spill_waiting=4), FULL, ""),
        (Rule(spill_waiting=0), Load(running=4, slots=4), "4 requests run there and 0 wait"),
        (Rule(spill_waiting=0), Load(running=3, slots=4), ""),
        (Rule(spill_seconds=2.5), FULL, "its first word would take about 3.0 s"),
        (Rule(spill_seconds=3.5), FULL, ""),
    ],
)
def test_who_is_busy_is_passed_over(rule: Rule, load: Load, against: str) -> None:
    """By the depth of its queue, or by the expected time to its first word; it remains as the last resort."""
    found = order([target("local"), target("far", local=False)], rule, local=Seen(load=load, first_delta_seconds=1.0))
    assert found == (["far", f"local {against}"] if against else ["local", "far"])


def test_long_requests_leave_this_machine() -> None:
    """Where the operator says from which length on."""
    long = asking({"type": "input_text", "text": "word " * 1000})
    found = order([target("local"), target("far", local=False)], Rule(spill_tokens=1000), long)
    assert found == ["far", "local the request has about 1250 tokens"]


def test_who_is_to_be_left_alone_comes_after_who_is_busy() -> None:
    """And both before those that cannot at all."""
    targets = [target("blind", images=False), target("down", images=True), target("full", images=True)]
    seen = {"down": Seen(rests=4.0), "full": Seen(load=FULL)}
    names = [said.split()[0] for said in order(targets, Rule(spill_waiting=1), asking(IMAGE), **seen)]
    assert names == ["full", "down", "blind"]


@pytest.mark.parametrize("rule", [Rule(), Rule(order="weighted", weights=(1e9, 1)), Rule(order="least_busy")], ids=str)
def test_who_has_begun_goes_on(rule: Rule) -> None:
    """Nobody else can tell the same again: neither chance nor its breaker speaks against it."""
    seen = {"b": Seen(load=FULL, rests=4.0)}
    targets, needs = [target("a"), target("b")], needs_of(asking())
    found = choices(targets, rule, needs, {"a": Seen(), **seen}, begun="b")
    assert [choice.target.name for choice in found] == ["b", "a"]


def test_the_least_busy_comes_first() -> None:
    """By the share of its places that is taken."""
    seen = {"a": Seen(load=Load(running=3, slots=4)), "b": Seen(load=Load(running=10, slots=100))}
    assert order([target("a"), target("b")], Rule(order="least_busy"), **seen) == ["b", "a"]


def test_those_that_are_equally_busy_share_the_requests() -> None:
    """Else the first would get all of what comes while nobody has anything to do."""
    random, rule = Random(7), Rule(order="least_busy")
    targets, seen = [target("a"), target("b")], {"a": Seen(), "b": Seen()}
    first = Counter(choices(targets, rule, needs_of(asking()), seen, random.random)[0].target.name for _ in range(4000))
    assert 1850 < first["a"] < 2150


def test_weights_are_shares() -> None:
    """Each target comes first about as often as its weight says."""
    random, rule = Random(7), Rule(order="weighted", weights=(3, 1))
    targets = [target("a"), target("b")]
    seen = {"a": Seen(), "b": Seen()}
    first = Counter(choices(targets, rule, needs_of(asking()), seen, random.random)[0].target.name for _ in range(4000))
    assert 2850 < first["a"] < 3150


def test_images_count_as_tokens_and_data_does_not() -> None:
    """An estimate: a data URL is long, and what a model sees of it is not."""
    image = asking({**IMAGE, "image_url": "data:image/png;base64," + "A" * 1_000_000})
    assert needs_of(image).tokens == 1000
