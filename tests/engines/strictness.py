"""The strictness kit: does an engine hold a model that knows nothing to schemas, grammars and choices of tools?

Each case is a request and a judge of what came. An outcome is valid, refused (before the first token, naming why),
unfinished (the limit came first) or invalid, and nothing may be invalid. The judges are others than the enforcers:
jsonschema-rs, and the matchers of `generated_grammars`.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import jsonschema_rs
from msgspec import Struct, structs

from engines.asking import HOT, ask, calls_of, obj, run, text_of, thought_of
from engines.generated_grammars import Case as GrammarCase
from engines.generated_grammars import grammars
from engines.generated_schemas import Schema, schemas
from ore.backends.base import ModelRequest
from ore.backends.local.local_model import LocalModel
from ore.core.deltas import Delta, Finish
from ore.errors import InvalidRequest, OreError

LIMIT: Final = 1500
"""Tokens: enough for everything that is asked here, so that few are cut off."""

OTHER: Final = {"type": "function", "name": "other", "strict": True, "parameters": obj(on={"type": "boolean"})}


class Case(Struct, frozen=True):
    """`good` judges the deltas of a finished answer. `refusal`, if any, is what a refusal has to name."""

    about: str
    request: ModelRequest
    good: Callable[[list[Delta]], bool]
    refusal: str = ""


class Outcome(Struct, frozen=True):
    """`verdict` is "valid", "refused", "unfinished" or "invalid"; `detail` is what came."""

    case: Case
    verdict: str
    detail: str = ""


def schema_cases(count: int, seed: int = 0) -> list[Case]:
    """As the text's format, as the arguments of a tool that is required, and of one that is named, in turns."""
    made = schemas(count, seed)
    return [_SCHEMA_WAYS[i % len(_SCHEMA_WAYS)](i, schema, refusal) for i, (schema, refusal) in enumerate(made)]


def grammar_cases(count: int, seed: int = 0) -> list[Case]:
    """As the input of a custom tool: named, or required where there is another tool."""
    return [_custom(number, case) for number, case in enumerate(grammars(count, seed))]


def _as_format(number: int, schema: Schema, refusal: str) -> Case:
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    good = _valid(schema)
    request = _hot(number, text_format=form)
    return Case(f"schema {number}: {json.dumps(schema)}", request, lambda deltas: good(text_of(deltas)), refusal)


def _as_required(number: int, schema: Schema, refusal: str) -> Case:
    return _as_call(number, schema, refusal, "required")


def _as_named(number: int, schema: Schema, refusal: str) -> Case:
    return _as_call(number, schema, refusal, {"type": "function", "name": "fill"})


def _as_call(number: int, schema: Schema, refusal: str, choice: Any) -> Case:
    root = schema if schema.get("type") == "object" else obj(held={"$ref": "#/$defs/node"}) | {"$defs": schema["$defs"]}
    tool = {"type": "function", "name": "fill", "strict": True, "parameters": root}
    judges = {"fill": _valid(root), "other": _valid(OTHER["parameters"])}
    request = _hot(number, tools=(tool, OTHER), tool_choice=choice, parallel_tool_calls=False)
    about = f"{choice} {number}: {json.dumps(root)}"
    return Case(about, request, _one_call(judges if choice == "required" else {"fill": judges["fill"]}), refusal)


_SCHEMA_WAYS: Final = (_as_format, _as_required, _as_named)


def _custom(number: int, case: GrammarCase) -> Case:
    form = {"type": "grammar", "syntax": case.syntax, "definition": case.definition}
    tool = {"type": "custom", "name": "write", "format": form}
    alone = number % 3 != 2
    choice: Any = {"type": "custom", "name": "write"} if alone else "required"
    judges = {"write": case.matches} | ({} if alone else {"other": _valid(OTHER["parameters"])})
    request = _hot(number, tools=(tool, OTHER), tool_choice=choice, parallel_tool_calls=False)
    return Case(f"{case.syntax} {number}: {case.definition}", request, _one_call(judges))


def _hot(number: int, **fields: Any) -> ModelRequest:
    return ask(max_output_tokens=LIMIT, sampling=structs.replace(HOT, seed=number), **fields)


def _valid(schema: Schema) -> Callable[[str], bool]:
    validator = jsonschema_rs.validator_for(schema, offline=True, validate_formats=True)

    def good(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text)))
        except json.JSONDecodeError:
            return False

    return good


def _one_call(judges: dict[str, Callable[[str], bool]]) -> Callable[[list[Delta]], bool]:
    def good(deltas: list[Delta]) -> bool:
        calls = calls_of(deltas)
        if len(calls) != 1 or text_of(deltas):
            return False
        name, given = calls[0]
        return name in judges and judges[name](given)

    return good


async def outcome(model: LocalModel, case: Case) -> Outcome:
    """Ask, and judge."""
    deltas: list[Delta] = []
    try:
        async with model.stream(case.request) as coming:
            deltas.extend([delta async for delta in coming])
    except InvalidRequest as error:
        named = case.refusal in error.message and bool(error.param) and not deltas
        return Outcome(case, "refused" if named else "invalid", error.message)
    except OreError as error:
        return Outcome(case, "invalid", error.message)
    finish = deltas[-1]
    assert isinstance(finish, Finish)
    told = text_of(deltas) or str(calls_of(deltas))
    if finish.reason == "max_output_tokens":
        return Outcome(case, "unfinished", told or f"still thinking: {thought_of(deltas)[:100]}")
    return Outcome(case, "valid" if not case.refusal and case.good(deltas) else "invalid", told)


async def outcomes(
    model: LocalModel, cases: list[Case], done: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """All cases, as many at once as the model has slots."""
    left = list(reversed(cases))
    found: list[Outcome] = []

    async def worker() -> None:
        while left:
            found.append(await outcome(model, left.pop()))
            done(found[-1])

    await asyncio.gather(*(worker() for _ in range(model.options.slots)))
    return found


def sample(cases: list[Case], count: int, seed: int = 0) -> list[Case]:
    """A part of them, the same each time."""
    return random.Random(seed).sample(cases, count)


def counted(found: list[Outcome]) -> Counter[str]:
    """How many of each verdict."""
    return Counter(each.verdict for each in found)


__all__ = ["Case", "Outcome", "counted", "grammar_cases", "outcome", "outcomes", "run", "sample", "schema_cases"]
