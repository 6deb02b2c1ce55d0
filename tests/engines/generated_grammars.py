"""Grammars by dice, for the strictness kit: Lark and regular expressions, each with its own judge of texts.

A grammar is a small tree (`Node`). It is written down twice: in the syntax that a client would send, and as a matcher
(`matches`) that knows neither Lark nor llguidance. Some written by hand are there too: arithmetic, a path, SQL.
"""

import random
import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct


class Case(Struct, frozen=True):
    """A grammar as a custom tool has it, and whether a text is of it."""

    syntax: str
    definition: str
    matches: Callable[[str], bool]


class Node(Struct, frozen=True):
    """`kind` is "text", "class", "all", "any", "repeat" (of its one part, `low` to `high` times) or "rule"."""

    kind: str
    text: str = ""
    parts: "tuple[Node, ...]" = ()
    low: int = 1
    high: int = 1


def grammars(count: int, seed: int = 0) -> list[Case]:
    """Half of them Lark, half regular expressions; those written by hand come first."""
    made = list(BY_HAND)
    while len(made) < count:
        dice = random.Random(f"{seed}/{len(made)}")
        made.append(_lark(dice) if len(made) % 2 else _regex(dice))
    return made[:count]


def _regex(dice: random.Random) -> Case:
    tree = _tree(dice, 0, rules=0)
    pattern = as_regex(tree)
    return Case("regex", pattern, _fully(pattern))


def _lark(dice: random.Random) -> Case:
    count = dice.randint(0, 2)
    rules = {f"r{i}": _tree(dice, 1, rules=0) for i in range(count)}
    tree = _tree(dice, 0, rules=count)
    if dice.random() < 0.3:  # a rule that holds itself between two marks, and so can be left at every step
        rules["nest"] = Node(
            "any",
            parts=(
                Node("all", parts=(Node("text", "("), Node("rule", "nest"), Node("text", ")"))),
                Node("text", "x"),
            ),
        )
        tree = Node("all", parts=(tree, Node("text", "="), Node("rule", "nest")))
    lines = [f"start: {as_lark(tree)}", *(f"{name}: {as_lark(rule)}" for name, rule in rules.items())]
    return Case("lark", "\n".join(lines), lambda text: len(text) in set(_ends(tree, rules, text, 0)))


def _tree(dice: random.Random, depth: int, *, rules: int) -> Node:
    """A node; `rules` is how many rules it may refer to."""
    kind = dice.choice(LEAVES[: None if rules else 2] if depth >= 3 else KINDS)
    if kind == "text":
        return Node("text", dice.choice(TEXTS))
    if kind == "class":
        return Node("class", dice.choice(CLASSES))
    if kind == "rule":
        return Node("rule", f"r{dice.randrange(rules)}")
    low, count = dice.randint(0, 2), 1 if kind == "repeat" else dice.randint(2, 3)
    parts = tuple(_tree(dice, depth + 1, rules=rules) for _ in range(count))
    return Node(kind, parts=parts, low=low, high=low + dice.randint(1, 2))


LEAVES: Final = ("text", "class", "rule")
KINDS: Final = ("text", "class", "all", "all", "any", "repeat")
TEXTS: Final = ("a", "foo", "if ", ": ", "<b>", '"', "\\", "/", "\u00e9", "{}", "\n", "#", "//", "</tool_call", "'")
CLASSES: Final = ("[a-z]", "[0-9]", "[A-F0-9]", "[^a-zA-Z \\t-\\r]", "[ \\t]", "[\u4e00-\u4e10]")


def as_regex(node: Node) -> str:
    """As a regular expression."""
    parts = [as_regex(part) for part in node.parts]
    return {
        "text": lambda: "".join(_ESCAPES.get(c, re.escape(c)) for c in node.text),
        "class": lambda: node.text,
        "all": lambda: "".join(parts),
        "any": lambda: f"(?:{'|'.join(parts)})",
        "repeat": lambda: f"(?:{parts[0]}){{{node.low},{node.high}}}",
    }[node.kind]()


_ESCAPES: Final = {"\n": "\\n", "/": "/", '"': '"', "'": "'", "<": "<", ">": ">", "#": "\\#", ":": ":", " ": " "}


def as_lark(node: Node) -> str:
    """As the right side of a Lark rule."""
    parts = [as_lark(part) for part in node.parts]
    return {
        "text": lambda: _lark_text(node.text),
        "class": lambda: f"/{node.text}/",
        "rule": lambda: node.text,
        "all": lambda: f"({' '.join(parts)})",
        "any": lambda: f"({' | '.join(parts)})",
        "repeat": lambda: f"({parts[0]}){{{node.low},{node.high}}}",
    }[node.kind]()


def _lark_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _ends(node: Node, rules: dict[str, Node], text: str, at: int) -> Iterator[int]:
    """Where a text that matches may end. Rules that hold themselves take a character first, so this ends."""
    match node.kind:
        case "text":
            if text.startswith(node.text, at):
                yield at + len(node.text)
        case "class":
            if at < len(text) and re.fullmatch(node.text, text[at]):
                yield at + 1
        case "rule":
            yield from _ends(rules[node.text], rules, text, at)
        case "any":
            yield from {end for part in node.parts for end in _ends(part, rules, text, at)}
        case "all":
            yield from _after(node.parts, rules, text, at)
        case "repeat":
            for times in range(node.low, node.high + 1):
                yield from set(_after(node.parts * times, rules, text, at))


def _after(parts: tuple[Node, ...], rules: dict[str, Node], text: str, at: int) -> set[int]:
    places = {at}
    for part in parts:
        places = {end for place in places for end in _ends(part, rules, text, place)}
    return places


def _fully(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


ARITHMETIC: Final = """\
start: sum
sum: product (("+" | "-") product)?
product: atom (("*" | "/") atom)?
atom: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,3}/
"""

SQL: Final = """\
start: "SELECT " columns " FROM " NAME where?
columns: "*" | NAME ("," NAME){0,2}
where: " WHERE " NAME OP VALUE
OP: "=" | "<" | ">"
VALUE: /[0-9]{1,4}/ | "'" /[a-z]{0,6}/ "'"
NAME: /[a-z]{1,6}/
"""


def _is_arithmetic(text: str) -> bool:
    while text != (shorter := re.sub(r"\((\d{1,3}([*/]\d{1,3})?([+-]\d{1,3}([*/]\d{1,3})?)?)\)", "1", text)):
        text = shorter
    return re.fullmatch(r"\d{1,3}([*/]\d{1,3})?([+-]\d{1,3}([*/]\d{1,3})?)?", text) is not None


BY_HAND: Final = (
    Case("lark", ARITHMETIC, _is_arithmetic),
    Case("regex", r"[A-Z]{1,5}!", _fully(r"[A-Z]{1,5}!")),
    Case(
        "lark",
        SQL,
        _fully(
            r"SELECT (\*|[a-z]{1,6}(,[a-z]{1,6}){0,2}) FROM [a-z]{1,6}"
            r"( WHERE [a-z]{1,6}[=<>]([0-9]{1,4}|'[a-z]{0,6}'))?"
        ),
    ),
    Case("regex", r"(/[a-z]{1,4}){1,3}\.(txt|md)", _fully(r"(/[a-z]{1,4}){1,3}\.(txt|md)")),
    Case("lark", 'start: "yes" | "no" | /[0-9]{2}:[0-9]{2}/', _fully(r"yes|no|[0-9]{2}:[0-9]{2}")),
    Case("regex", r"\d{4}-(0[1-9]|1[0-2])-\d{2}", _fully(r"[0-9]{4}-(0[1-9]|1[0-2])-[0-9]{2}")),
)
