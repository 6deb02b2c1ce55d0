"""Dialogues with functions: choose one, fill its arguments, or do not call; then answer from the result.

A family describes one kind of function with several names, descriptions, parameter names and ways to ask; others are
made of random verbs, nouns and parameters, so that the model has to read the signature. It refuses to teach
functions that need knowledge: every argument stands in the user's words.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import words
from words import Words

Message = dict[str, Any]
Value = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """One parameter of a family: its possible names, where its values come from, its possible descriptions."""

    names: list[str]
    source: str
    descriptions: list[str] = field(default_factory=lambda: [""])
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """One kind of function. In `says`, {0} is the first parameter's words; a [bracket] goes with its parameter."""

    names: list[str]
    descriptions: list[str]
    parameters: list[Parameter]
    says: list[str]
    results: str


TABLES = tomllib.loads((Path(__file__).parent / "tables" / "functions.toml").read_text())
FAMILIES = [
    Family(**{**family, "parameters": [Parameter(**p) for p in family["parameters"]]}) for family in TABLES["family"]
]
MORE: dict[str, dict[str, list[str]]] = TABLES["more"]
GENERIC: dict[str, dict[str, Any]] = TABLES["generic"]
VAGUE: dict[str, list[str]] = TABLES["vague"]
ROOMS: list[str] = words.LISTS["rooms"]
CURRENCIES: list[str] = words.LISTS["currencies"]
COMMANDS: list[str] = words.LISTS["commands"]


def value_of(words_: Words, source: str) -> tuple[str, Value]:
    """The words of a user and the argument they stand for."""
    kind, _, rest = source.partition(":")
    if kind == "enum":
        choice = words_.any(rest.split(","))
        return choice, choice
    if kind == "bool":
        on = words_.chance(0.5)
        return rest.split(",")[0 if on else 1], on
    if kind in ("integer", "small", "tiny"):
        number = {
            "integer": words_.integer,
            "small": lambda: words_.rng.randint(1, 60),
            "tiny": lambda: words_.rng.randint(1, 9),
        }[kind]()
        return str(number), number
    if kind == "number":
        number = words_.decimal() if words_.chance(0.3) else words_.integer()
        return str(number), number
    if kind == "expression":
        count = words_.rng.choice((2, 2, 2, 3))
        parts = [str(words_.integer())]
        gap = words_.any(["", " "])
        for _ in range(count - 1):
            parts += [words_.any(["+", "-", "*", "/", "+", "*"]), str(words_.integer())]
        text = gap.join(parts)
        return text, text
    lists = {"language": words.LANGUAGES, "room": ROOMS, "currency": CURRENCIES, "command": COMMANDS}
    if kind in lists:
        text = words_.any(lists[kind])
    elif kind == "company":
        text = (
            words_.invented(True)
            if words_.chance(0.4)
            else words_.any([*words.COMPANIES, "AAPL", "MSFT", "TSLA", "NVDA", "IBM"])
        )
    elif kind == "song":
        text = " ".join(w.capitalize() for w in words_.thing().split())
    elif kind == "restaurant":
        text = words_.any(["", "", "La ", "Cafe ", "The "]) + words_.invented(True)
    elif kind == "file":
        text = (
            words_.any(["", "docs/", "src/", "logs/", "data/"])
            + words_.noun()
            + words_.any([".txt", ".md", ".py", ".json", ".csv"])
        )
    elif kind == "folder":
        text = words_.any(["logs", "docs", "src/" + words_.noun(), "/home/" + words_.invented(), "./" + words_.noun()])
    else:
        text = str(words_.named(kind))
    return text, text


JSON_TYPES = {"integer": "integer", "small": "integer", "tiny": "integer", "number": "number", "bool": "boolean"}


@dataclass
class Function:
    """A function as one dialogue uses it: its definition and the ways to ask for it."""

    definition: dict[str, Any]
    sources: list[tuple[str, str, bool]]
    says: list[str]
    results: str
    kind: str

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.definition["function"]["name"])

    def ask(self, words_: Words) -> tuple[str, dict[str, Value]]:
        """What a user says, and the arguments; the say's brackets decide which optional ones are there."""
        says = words_.any(self.says)
        values = [value_of(words_, source) for _, source, _ in self.sources]
        given = [f"{{{i}}}" in says for i in range(len(values))]
        for i, (_, _, optional) in enumerate(self.sources):
            bracket = re.search(rf"\[[^\]]*\{{{i}\}}[^\]]*\]", says)
            if bracket:
                keep = not optional or words_.chance(0.5)
                given[i] = keep
                says = says.replace(bracket.group(), bracket.group()[1:-1] if keep else "")
        text = says.format(*[text for text, _ in values])
        arguments = {name: values[i][1] for i, (name, _, _) in enumerate(self.sources) if given[i]}
        return text[0].upper() + text[1:] if words_.chance(0.8) else text, arguments


def definition(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A function tool as the Chat Completions interface has it."""
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def property_of(source: str, description: str) -> dict[str, Any]:
    """The schema of one parameter."""
    kind, _, rest = source.partition(":")
    schema: dict[str, Any] = {"type": JSON_TYPES.get(kind, "string")}
    if kind == "enum":
        schema["enum"] = rest.split(",")
    if description:
        schema["description"] = description
    return schema


def from_family(words_: Words, family: Family) -> Function:
    """A function of a family with names drawn for this dialogue."""
    description = words_.any(family.descriptions)
    if not words_.unseen and words_.chance(0.4):
        description = words_.any(MORE[family.names[0]]["descriptions"])
    name = name_of(words_, family, described=bool(description))
    properties: dict[str, Any] = {}
    sources, required = [], []
    describe = words_.chance(0.5)
    for parameter in family.parameters:
        key = key_of(words_, [n for n in parameter.names if n not in properties], alone=len(family.parameters) == 1)
        text = words_.any(parameter.descriptions) if describe else ""
        properties[key] = property_of(parameter.source, text)
        sources.append((key, parameter.source, parameter.optional))
        if not parameter.optional or words_.chance(0.15):
            required.append(key)
    sources = [(key, source, key not in required) for key, source, _ in sources]
    return Function(
        definition(name, description, properties, required),
        sources,
        [s for s in family.says if says_fits(words_, s) and says_enough(s, sources)],
        family.results,
        family.names[0],
    )


def name_of(words_: Words, family: Family, described: bool) -> str:
    """A name for a function: a listed one, or one that says nothing if a description says it.

    Training composes names too. They are many, so that the model reads them instead of knowing them.
    """
    if described and words_.chance(0.06 if words_.unseen else 0.35):
        return words_.invented()
    name = split_pick(words_, family.names)
    if words_.unseen or words_.chance(0.3):
        return name
    parts = MORE[family.names[0]]
    composed = f"{words_.any(parts['verbs'])}_{words_.any(parts['things'])}"
    composed = words_.any([composed, composed, composed, name, parts["things"][0]])
    style = words_.rng.random()
    if style < 0.25:
        head, *tail = composed.split("_")
        composed = head + "".join(part.capitalize() for part in tail)
    elif style < 0.4:
        composed = words_.any(["my_", "do_", "the_", "api_", f"{words_.invented()}_"]) + composed
    elif style < 0.5:
        composed += words_.any(["_tool", "_now", "_function", "_v2", f"_{words_.invented()}"])
    return composed if words_.fits(composed) else name


def key_of(words_: Words, options: list[str], alone: bool) -> str:
    """A name for a parameter; training decorates it, and one that stands alone may be called anything."""
    key = split_pick(words_, options)
    if words_.unseen or words_.chance(0.6):
        return key
    if alone and words_.chance(0.4):
        return words_.any([words_.invented(), words_.noun()])
    other = words_.any([words_.invented(), words_.noun(), "value", "the", "my", "input", "arg"])
    made = words_.any([f"{other}_{key}", f"{key}_{other}", f"{other}{key.capitalize()}"])
    return made if words_.fits(made) else key


def split_pick(words_: Words, options: list[str]) -> str:
    """One of the options, of this side if there is one."""
    fitting = [option for option in options if words_.fits(option)]
    return words_.any(fitting or options)


def says_fits(words_: Words, says: str) -> bool:
    """Whether a way to ask is of this side: a held-out dialogue uses all, training leaves some out."""
    return words_.unseen or not words.held_out(says)


def says_enough(says: str, sources: list[tuple[str, str, bool]]) -> bool:
    """Whether a way to ask tells all that the function needs: nobody could know the rest."""
    return all(optional or f"{{{i}}}" in says for i, (_, _, optional) in enumerate(sources))


def invented_function(words_: Words) -> Function:
    """A function that no family has: verb, noun, and parameters of any kind."""
    verb = words_.any(words.VERBS)
    noun = words_.noun()
    while words.held_out(f"{verb}_{noun}") != words_.unseen:
        verb, noun = words_.any(words.VERBS), words_.noun()
    style = words_.rng.random()
    name = (
        f"{verb}_{noun}"
        if style < 0.7
        else verb.replace("_on", "On").replace("_off", "Off") + noun.capitalize()
        if style < 0.85
        else f"{noun}_{verb}"
    )
    spoken = verb.replace("_", " ")
    properties: dict[str, Any] = {}
    sources, required, chunks, used = [], [], [], []
    for key in words_.rng.sample(sorted(GENERIC), words_.rng.choice((0, 1, 1, 1, 2, 2, 3))):
        source, says = GENERIC[key]["source"], GENERIC[key]["says"]
        if words_.chance(0.3):
            key, source = (
                words_.invented(),
                words_.any(["integer", "word", "number", "code", "city", "bool:true,false", "noun"]),
            )
            says = [f" with {key} {{}}", f" with the {key} {{}}", f" and {key} {{}}"]
        says = [say for say in says if say not in used]
        if not says:
            continue
        description = words_.any([f"The {key}", f"{key} of the {noun}", ""]) if words_.chance(0.3) else ""
        optional = words_.chance(0.3)
        properties[key] = property_of(source, description)
        if not optional:
            required.append(key)
        used.append(words_.any(says))
        chunk = used[-1].replace("{}", f"{{{len(sources)}}}")
        sources.append((key, source, optional))
        chunks.append(f"[{chunk}]" if optional else chunk)
    end = words_.any(
        [
            "{V} the {N}{C}.",
            "Please {v} the {N}{C}.",
            "Can you {v} the {N}{C}?",
            "I want to {v} a {N}{C}.",
            "{V} {N}{C}",
            "{V} a {N}{C}, please.",
            "Could you please {v} the {N}{C}?",
            "I need you to {v} the {N}{C}.",
        ]
    )
    says = (
        end.replace("{V}", spoken.capitalize())
        .replace("{v}", spoken)
        .replace("{N}", noun)
        .replace("{C}", "".join(chunks))
    )
    description = words_.any(
        [
            f"{spoken.capitalize()} a {noun}",
            f"{spoken.capitalize()} the {noun}",
            f"Use this to {spoken} a {noun}",
            f"{spoken.capitalize()}s a {noun}",
            "",
        ]
    )
    return Function(definition(name, description, properties, required), sources, [says], "status", f"{verb} {noun}")


def some_function(words_: Words) -> Function:
    """A function of a family or an invented one."""
    if words_.chance(0.35):
        return invented_function(words_)
    return from_family(words_, FAMILIES[0] if words_.chance(0.1) else words_.rng.choice(FAMILIES))


JUDGED_OTHERS, TRAINED_OTHERS = (0, 0, 1, 1, 2, 2, 3, 4), (0, 1, 1, 2, 2, 3, 3, 4, 4)


def toolbox(words_: Words, wanted: Function) -> list[Function]:
    """The wanted function among zero to four others, in random order."""
    tools = [wanted]
    for _ in range(words_.rng.choice(JUDGED_OTHERS if words_.unseen else TRAINED_OTHERS)):
        other = some_function(words_)
        if not any(alike(other, tool) for tool in tools):
            tools.append(other)
    words_.rng.shuffle(tools)
    return tools


ARITHMETIC = ("add", "multiply", "divide", "subtract")


def alike(one: Function, other: Function) -> bool:
    """Whether a request could be meant for either: a dialogue has no two such functions."""
    if one.name == other.name or one.kind == other.kind:
        return True
    if "calculate" in (one.kind, other.kind) and {one.kind, other.kind} & set(ARITHMETIC):
        return True
    return one.results == other.results and one.results not in ("status", "text", "number")


def call(name: str, arguments: dict[str, Value]) -> dict[str, Any]:
    """A tool call in an assistant message."""
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}


CONDITIONS: list[str] = words.LISTS["conditions"]


def fields_of(words_: Words, results: str) -> dict[str, Value]:
    """A result as data."""
    if results == "weather":
        pool: dict[str, Value] = {
            "temperature": words_.rng.randint(-15, 40),
            "condition": words_.any(CONDITIONS),
            "humidity": words_.rng.randint(10, 99),
            "unit": words_.any(["celsius", "fahrenheit"]),
            "wind": words_.rng.randint(0, 90),
        }
    elif results == "number":
        pool = {"result": words_.decimal() if words_.chance(0.4) else words_.rng.randint(0, 99999)}
    elif results == "time":
        pool = {"time": words_.time(), "timezone": words_.any(["UTC", "CET", "EST", "PST", "JST"])}
    elif results == "price":
        pool = {"price": words_.decimal(), "currency": words_.any(CURRENCIES), "change": words_.decimal()}
    elif results == "user":
        pool = {
            "name": words_.person(),
            "email": words_.email(),
            "age": words_.rng.randint(18, 90),
            "city": words_.city(),
        }
    elif results == "order":
        pool = {
            "status": words_.any(["shipped", "delivered", "pending", "lost", "cancelled"]),
            "date": words_.date(),
            "city": words_.city(),
        }
    elif results == "label":
        pool = {"label": words_.invented(), "score": words_.decimal(), "price": words_.integer()}
    else:
        pool = {
            "status": words_.any(["ok", "done", "sent", "created", "saved"]),
            "id": words_.code(),
            words_.noun(): words_.word(),
            words_.invented(): words_.integer(),
        }
    keys = list(pool)
    if results not in ("number",):
        keep = sorted(words_.rng.sample(range(len(keys)), words_.rng.randint(1, min(4, len(keys)))))
        keys = [keys[i] for i in keep]
    return {key: pool[key] for key in keys}


def sentence_of(fields: dict[str, Value]) -> str:
    """The short sentence that says all of a result: 'The a is 1, the b is 2 and the c is 3.'"""
    parts = [f"the {key.replace('_', ' ')} is {spoken_value(value)}" for key, value in fields.items()]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return text[0].upper() + text[1:] + "."


def spoken_value(value: Value) -> str:
    """A value as words."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def result_and_answer(words_: Words, results: str) -> tuple[str, str]:
    """A function's output and the assistant's sentence about it."""
    style = words_.rng.random()
    if style < 0.05:
        reason = words_.any(
            ["not found", "timeout", "no access", f"unknown {words_.noun()}", f"{words_.noun()} is missing"]
        )
        return json.dumps({"error": reason}), f"The function failed: {reason}."
    if style < 0.1 or (style < 0.5 and results in ("search", "text")):
        rows = [words_.any([words_.noun, words_.name, words_.thing])() for _ in range(words_.rng.randint(1, 4))]
        return json.dumps(rows, ensure_ascii=False), f"The results are: {', '.join(rows)}."
    if style < 0.35 or results in ("text", "search"):
        if results == "weather":
            unit = words_.any(["degrees", "C", "F", "degrees celsius"])
            text = f"{words_.any(CONDITIONS)}, {words_.rng.randint(-10, 38)} {unit}"
            text = words_.any([text, text.capitalize()])
        elif results in ("number", "price"):
            text = str(words_.decimal() if words_.chance(0.5) else words_.integer())
        elif results == "time":
            text = words_.time()
        else:
            text = words_.any(
                [words_.phrase(), words_.phrase(), words_.thing(), f"{words_.word()}, {words_.word()}", words_.name()]
            )
        return text, f"The result is: {text.rstrip('.')}."
    fields = fields_of(words_, results)
    return json.dumps(fields, ensure_ascii=False), sentence_of(fields)


def turns_of_call(words_: Words, function: Function, finish: bool) -> list[Message]:
    """One request, its call, and perhaps the result with the answer; sometimes two calls at once."""
    text, arguments = function.ask(words_)
    first = function.sources[0] if function.sources else None
    calls = [call(function.name, arguments)]
    kinds = ("city", "person", "topic", "company", "word", "code")
    if first and first[1] in kinds and list(arguments) == [first[0]] and words_.chance(0.25 if words_.unseen else 0.5):
        other, value = value_of(words_, first[1])
        known = str(arguments[first[0]])
        joined = words_.any(
            [
                f"{known} and {other}",
                f"{known} and in {other}" if first[1] == "city" and f"in {known}" in text else f"{known} and {other}",
            ]
        )
        if value != arguments[first[0]] and text.count(known) == 1:
            text = text.replace(known, joined)
            calls.append(call(function.name, {first[0]: value}))
    messages: list[Message] = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    if finish:
        answers = []
        for _ in calls:
            output, answer = result_and_answer(words_, function.results)
            messages.append({"role": "tool", "content": output})
            answers.append(answer)
        messages.append({"role": "assistant", "content": " ".join(answers)})
    return messages


FOLLOW_UPS: list[str] = words.LISTS["follow_ups"]
REPEATABLE = ("city", "person", "topic", "company", "word", "code", "file")


def follow_up(words_: Words, function: Function) -> list[Message]:
    """A short request that repeats the last function with another value; empty where that makes no sense."""
    needed = [source for source in function.sources if not source[2]]
    if len(needed) != 1 or function.sources[0] != needed[0] or needed[0][1] not in REPEATABLE:
        return []
    text, value = value_of(words_, needed[0][1])
    asks = [*FOLLOW_UPS, "And in {0}?", "And what about {0}?"] if needed[0][1] == "city" else FOLLOW_UPS
    asked = words_.any(asks).replace("{0}", text)
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "", "tool_calls": [call(function.name, {needed[0][0]: value})]},
    ]


def vague(words_: Words, function: Function) -> list[Message]:
    """A request that lacks the one thing the function needs: the assistant asks for it, and gets it."""
    needed = [source for source in function.sources if not source[2]]
    if function.results not in VAGUE or len(needed) != 1:
        return []
    key, source, _ = needed[0]
    text, value = value_of(words_, source)
    messages: list[Message] = [
        {"role": "user", "content": words_.any(VAGUE[function.results])},
        {"role": "assistant", "content": f"Please tell me the {key.replace('_', ' ')}."},
    ]
    if words_.chance(0.6):
        messages += [
            {"role": "user", "content": words_.any(["{0}", "{0}.", "It is {0}.", "{0}, please."]).replace("{0}", text)},
            {"role": "assistant", "content": "", "tool_calls": [call(function.name, {key: value})]},
        ]
    return messages
