"""Make the dialogues that ore-tiny is trained and judged on; the same seed gives the same dialogues.

`python generate.py --sample 5` prints some. Training and held-out dialogues draw from disjoint words (`words.py`).
It refuses to read anything: every dialogue comes from the tables and rules of this folder.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

import chat
import functions
import schemas
from words import Words

HERE = Path(__file__).parent
Message = dict[str, Any]


@dataclass
class Example:
    """A dialogue; every assistant message in it is to be learnt."""

    skill: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


@cache
def template() -> jinja2.Template:
    """The chat template, compiled as chat engines compile it: `tojson` is plain JSON."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  (prompts, not HTML)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((HERE / "template.jinja").read_text())


def render(messages: list[Message], tools: list[dict[str, Any]], prompt: bool = False) -> str:
    """The text of a dialogue; with `prompt` it ends where the assistant begins."""
    return template().render(messages=messages, tools=tools or None, add_generation_prompt=prompt)


def tool_system(w: Words) -> list[Message]:
    """Sometimes a system message beside the tools."""
    if w.chance(0.7):
        return []
    text = w.any(
        [
            "You are a helpful assistant.",
            "You are a helpful AI assistant.",
            "Use the tools when they help.",
            "Be brief.",
            f"You are {w.name()}.",
            f"Today is {w.date()}.",
            "You are an assistant with access to functions.",
            "Call a function if it is needed.",
        ]
    )
    return [chat.system(text)]


def using_tools(w: Words) -> Example:
    """Requests that a function answers, one after the other, with results and talk between them."""
    if not w.unseen and w.chance(0.45):
        return choosing(w)
    wanted = functions.some_function(w)
    tools = functions.toolbox(w, wanted)
    messages = tool_system(w)
    if w.chance(0.2):
        messages += talk(w)
    rounds = w.rng.choice((1, 1, 1, 2, 2, 3))
    for i in range(rounds):
        function = wanted if i == 0 or w.chance(0.2) else w.rng.choice(tools)
        messages += functions.turns_of_call(w, function, finish=i < rounds - 1 or w.chance(0.5))
        if messages[-1].get("tool_calls") is None:
            if w.chance(0.35):
                messages += functions.follow_up(w, function)
            elif w.chance(0.25):
                messages += talk(w)
        if messages[-1].get("tool_calls"):
            break
    return Example("call", messages, [t.definition for t in tools])


def choosing(w: Words) -> Example:
    """The drill of choosing: several functions, and one request after the other, each with an empty result. Only for
    training: a choice costs a third of the tokens that it costs in a whole dialogue."""
    tools = functions.toolbox(w, functions.some_function(w))
    messages: list[Message] = []
    for function in w.rng.sample(tools, w.rng.randint(1, len(tools))):
        answered = messages[-1]["tool_calls"] if messages else []
        messages += [{"role": "tool", "content": "ok"} for _ in answered]
        messages += functions.turns_of_call(w, function, finish=False)
    return Example("call", messages, [t.definition for t in tools])


TALKS: tuple[tuple[Callable[[Words], list[Message]], int], ...] = (
    (chat.small_talk, 5),
    (chat.about_ore, 3),
    (chat.memory, 3),
    (chat.echo, 2),
    (chat.unknown, 1),
)


def talk(w: Words) -> list[Message]:
    """Plain talk while functions are there; nothing that one of them could answer."""
    turns = w.rng.choices([t for t, _ in TALKS], [n for _, n in TALKS])[0](w)
    blocked = (
        "time",
        "weather",
        "date",
        "day is",
        "rain",
        "year is",
        "translate",
        "say hello in",
        "how do you say",
        "people live",
        "population",
        "get to",
        "recipe",
    )
    asked = " ".join(m["content"].lower() for m in turns if m["role"] == "user")
    return [] if any(b in asked for b in blocked) else turns


def ignoring_tools(w: Words) -> Example:
    """Functions are there and none is needed."""
    tools = functions.toolbox(w, functions.some_function(w))
    turns: list[Message] = []
    kind = w.rng.random()
    if kind < 0.12:
        turns = functions.vague(w, w.rng.choice(tools))
    elif kind < 0.3:
        turns = impossible(w, tools)
    while not turns:
        turns = talk(w)
    return Example("no_call", tool_system(w) + turns, [t.definition for t in tools])


NO_FUNCTION = "I have no function for that."


def impossible(w: Words, tools: list[functions.Function]) -> list[Message]:
    """A request for which none of the functions is made."""
    family = w.rng.choice(functions.FAMILIES)
    other = functions.from_family(w, family)
    kinds = {t.results for t in tools}
    if len(tools) > 2 or any(t.says[0] in family.says for t in tools) or other.results in kinds:
        return []
    return [chat.user(other.ask(w)[0]), chat.says(NO_FUNCTION)]


def answering(w: Words) -> Example:
    """The dialogue ends with the answer from a function's result."""
    wanted = functions.some_function(w)
    tools = functions.toolbox(w, wanted)[:2]
    if wanted not in tools:
        tools = [wanted]
    return Example(
        "result", tool_system(w) + functions.turns_of_call(w, wanted, finish=True), [t.definition for t in tools]
    )


SKILLS: dict[str, tuple[int, Callable[[Words], list[Message] | Example]]] = {
    "talk": (8, chat.small_talk),
    "ore": (16, chat.about_ore),
    "echo": (8, chat.echo),
    "drill": (10, chat.drill),
    "counting": (5, chat.counting),
    "unknown": (3, chat.unknown),
    "attachment": (2, chat.attachment),
    "memory": (14, chat.memory),
    "persona": (3, chat.persona),
    "instruction": (20, chat.instructed),
    "language": (2, chat.in_language),
    "system": (4, chat.plain_system),
    "call": (90, using_tools),
    "result": (8, answering),
    "no_call": (9, ignoring_tools),
    "schema": (55, schemas.example),
}


def make(rng: random.Random, unseen: bool, skill: str | None = None) -> Example:
    """One dialogue of a skill, or of any."""
    w = Words(rng, unseen)
    skill = skill or rng.choices(list(SKILLS), [weight for weight, _ in SKILLS.values()])[0]
    made = SKILLS[skill][1](w)
    return made if isinstance(made, Example) else Example(skill, made)


def main() -> None:
    """Print dialogues to look at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=5, help="how many of each skill")
    parser.add_argument("--skill", choices=list(SKILLS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unseen", action="store_true", help="from the held-out words")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for skill in [options.skill] if options.skill else SKILLS:
        for _ in range(options.sample):
            example = make(rng, options.unseen, skill)
            print(f"--- {skill}\n{render(example.messages, example.tools)}")


if __name__ == "__main__":
    main()
