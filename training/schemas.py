"""Texts and JSON schemas: the model fills the schema from the text, keys in the schema's order.

Every value stands in the text, as a statement about a subject or as a list of `key: value` lines. It refuses to ask
for values that a reader would have to compute or to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import words
from words import Words

MARK = "Answer with JSON that matches this schema: "


@dataclass(frozen=True)
class Field:
    """A kind of value: key names, schema, how to draw it, and clauses that state it."""

    keys: str
    schema: dict[str, Any]
    draw: Callable[[Words], Any]
    clauses: str


TEXT, WHOLE, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}


def choice(*values: str) -> dict[str, Any]:
    """An enumeration."""
    return {"type": "string", "enum": list(values)}


def names(w: Words, count: int) -> list[str]:
    """So many different names."""
    found: list[str] = []
    while len(found) < count:
        found += {w.name()} - set(found)
    return found


SIZES, LEVELS, MOODS = ("small", "medium", "large"), ("low", "medium", "high"), ("positive", "negative", "neutral")
PERSON_FIELDS = (
    Field(
        "age|years|age_years",
        WHOLE,
        lambda w: w.rng.randint(1, 99),
        "is {} years old|is {}|has the age {}|turned {} this year",
    ),
    Field(
        "city|town|location|home|residence",
        TEXT,
        lambda w: w.city(),
        "lives in {}|is from {}|comes from {}|moved to {}",
    ),
    Field(
        "job|profession|occupation|role",
        TEXT,
        lambda w: w.any(words.JOBS),
        "works as a {}|is a {} by profession|has the job {}",
    ),
    Field(
        "email|mail|email_address", TEXT, lambda w: w.email(), "has the email {}|can be reached at {}|writes from {}"
    ),
    Field("pet|animal", TEXT, lambda w: w.animal(), "has a {}|owns a {}|keeps a {}"),
    Field("hobby|sport|likes", TEXT, lambda w: w.any(words.SPORTS), "likes {}|loves {}|does {} every week"),
    Field("employer|company|firm", TEXT, lambda w: w.invented(True), "works for {}|works at {}|is employed by {}"),
    Field(
        "favorite_color|color|colour",
        TEXT,
        lambda w: w.colour(),
        "likes the color {}|has the favourite colour {}|wears {}",
    ),
    Field(
        "phone|phone_number|telephone",
        TEXT,
        lambda w: str(w.rng.randint(100000, 99999999)),
        "has the phone number {}|can be called at {}",
    ),
    Field("height|height_cm", NUMBER, lambda w: w.rng.randint(120, 210), "is {} cm tall|measures {} cm"),
    Field("married|is_married", FLAG, lambda w: w.chance(0.5), "is married#is not married"),
    Field("student|is_student", FLAG, lambda w: w.chance(0.5), "is a student#is not a student"),
    Field(
        "languages|speaks",
        {"type": "array", "items": TEXT},
        lambda w: w.rng.sample(words.LANGUAGES, w.rng.randint(1, 3)),
        "speaks {}|knows {}",
    ),
    Field(
        "friends|children|family",
        {"type": "array", "items": TEXT},
        lambda w: names(w, w.rng.randint(1, 3)),
        "has the friends {}|knows {}|lives with {}",
    ),
)
THING_FIELDS = (
    Field(
        "price|cost|price_eur|amount",
        NUMBER,
        lambda w: w.decimal() if w.chance(0.5) else w.integer(),
        "costs {} euros|is sold for {}|has a price of {}|costs {} dollars",
    ),
    Field("color|colour", TEXT, lambda w: w.colour(), "is {}|comes in {}|has the color {}"),
    Field(
        "quantity|stock|count|in_stock",
        WHOLE,
        lambda w: w.rng.randint(1, 500),
        "is in stock {} times|has a stock of {}|was bought {} times",
    ),
    Field(
        "weight|weight_kg",
        NUMBER,
        lambda w: w.decimal() if w.chance(0.5) else w.integer(),
        "weighs {} kg|has a weight of {} kg",
    ),
    Field("size", choice(*SIZES), lambda w: w.any(SIZES), "is {}|has the size {}|comes in size {}"),
    Field(
        "available|in_stock|is_available",
        FLAG,
        lambda w: w.chance(0.5),
        "is available#is not available|can be bought#cannot be bought",
    ),
    Field(
        "brand|maker|manufacturer|company",
        TEXT,
        lambda w: w.invented(True),
        "is made by {}|comes from {}|is a product of {}",
    ),
    Field("id|sku|code|article", TEXT, lambda w: w.code(), "has the code {}|has the number {}|is listed as {}"),
    Field("date|release_date|delivery_date", TEXT, lambda w: w.date(), "was released on {}|arrives on {}|is due on {}"),
    Field("rating|stars", WHOLE, lambda w: w.rng.randint(1, 5), "has {} stars|got {} stars"),
    Field(
        "tags|labels|features",
        {"type": "array", "items": TEXT},
        lambda w: w.rng.sample(words.ADJECTIVES, w.rng.randint(1, 3)),
        "has the tags {}|is described as {}",
    ),
)
EVENT_FIELDS = (
    Field(
        "date|day|on|when",
        TEXT,
        lambda w: w.date() if w.chance(0.5) else w.any(words.DAYS),
        "is on {}|takes place on {}|happens on {}",
    ),
    Field("time|start|start_time", TEXT, lambda w: w.time(), "starts at {}|begins at {}"),
    Field("location|city|place|venue", TEXT, lambda w: w.city(), "is in {}|takes place in {}|happens in {}"),
    Field(
        "participants|people|attendees|guests",
        {"type": "array", "items": TEXT},
        lambda w: names(w, w.rng.randint(1, 4)),
        "is for {}|is with {}|has the guests {}",
    ),
    Field("organizer|host|owner", TEXT, lambda w: w.name(), "is organized by {}|is hosted by {}|is led by {}"),
    Field("price|ticket_price|cost", NUMBER, lambda w: w.integer(), "costs {} euros|has a ticket price of {}"),
    Field("priority|importance", choice(*LEVELS), lambda w: w.any(LEVELS), "has {} priority|has a {} importance"),
    Field(
        "online|is_online|remote",
        FLAG,
        lambda w: w.chance(0.5),
        "is online#is not online|is held online#is not held online",
    ),
)
SUBJECTS = {
    "person": ("name|full_name|person|first_name", lambda w: w.person(), PERSON_FIELDS),
    "product": ("name|product|item|title|article", lambda w: w.thing(), THING_FIELDS),
    "event": ("title|name|event|summary", lambda w: w.title(), EVENT_FIELDS),
}
ASKS: list[str] = words.LISTS["asks"]
GOOD: list[str] = words.LISTS["good"]
BAD: list[str] = words.LISTS["bad"]
PLAIN: list[str] = words.LISTS["plain"]


def said(value: Any) -> str:
    """A value in running text."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else ", ".join(value[:-1]) + " and " + value[-1]
    return str(value)


def clause(w: Words, field: Field, value: Any) -> str:
    """What the text says of a value; a flag has a true and a false clause."""
    options = field.clauses.split("|")
    text = w.any(options)
    if "#" in text:
        return text.split("#")[0 if value else 1]
    return text.replace("{}", said(value))


def subject(w: Words) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """A subject drawn at random: its kind, the text about it, the schema's properties, and the answer."""
    kind = w.any(list(SUBJECTS))
    keys, draw, fields = SUBJECTS[kind]
    drawn: list[tuple[str, dict[str, Any], Any, str]] = []
    name = draw(w)
    key = w.any(keys.split("|"))
    used = {key}
    for field in w.rng.sample(fields, w.rng.choice((1, 2, 2, 3, 3, 4))):
        free = [k for k in field.keys.split("|") if k not in used]
        if free:
            this = w.any(free)
            used.add(this)
            value = field.draw(w)
            drawn.append((this, field.schema, value, clause(w, field, value)))
    if w.chance(0.25):
        lines = [f"{key}: {name}"] + [
            f"{k}: {said(v) if not isinstance(v, bool) else ('yes' if v else 'no')}" for k, _, v, _ in drawn
        ]
        w.rng.shuffle(lines)
        text = "\n".join(lines)
    else:
        text = sentences(
            w, name if kind == "person" else f"The {name}" if kind == "product" else name, [c for *_, c in drawn], kind
        )
    asked = [(key, TEXT, name)] + [(k, s, v) for k, s, v, _ in drawn if w.chance(0.85)]
    if w.chance(0.4):
        w.rng.shuffle(asked)
    return kind, text, {k: dict(s) for k, s, _ in asked}, {k: v for k, _, v in asked}


def sentences(w: Words, name: str, clauses: list[str], kind: str) -> str:
    """Clauses about a name as one or several sentences."""
    pronoun = w.any(["He", "She"]) if kind == "person" else "It"
    if len(clauses) == 1:
        return f"{name} {clauses[0]}."
    if len(clauses) == 2 or w.chance(0.5):
        return f"{name} {', '.join(clauses[:-1])} and {clauses[-1]}."
    cut = w.rng.randint(1, len(clauses) - 1)
    return f"{name} {' and '.join(clauses[:cut])}. {pronoun} {' and '.join(clauses[cut:])}."


def closed(w: Words, properties: dict[str, Any]) -> dict[str, Any]:
    """An object schema with these properties, all required; decorated as clients do it."""
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    if w.chance(0.5):
        schema["additionalProperties"] = False
    if w.chance(0.15):
        schema = {"title": w.invented(True), **schema}
    return schema


def simple(w: Words) -> tuple[str, dict[str, Any], Any]:
    """One flat object."""
    kind, text, properties, answer = subject(w)
    return ask(w, kind, text), closed(w, properties), answer


def ask(w: Words, kind: str, text: str) -> str:
    """The user's message about a text."""
    asked = w.any(ASKS)
    if "\n" in text:
        asked = asked.replace(" {t}", "\n{t}").replace("{t} ", "{t}\n")
    return asked.replace("{s}", kind).replace("{t}", text)


def nested(w: Words) -> tuple[str, dict[str, Any], Any]:
    """An object within an object."""
    kind, text, properties, answer = subject(w)
    outer = w.any([kind, "data", "result", w.invented()])
    if len(answer) > 2 and w.chance(0.5):
        last = list(answer)[1:]
        inner = {k: properties[k] for k in last}
        first = next(iter(answer))
        whole = {first: properties[first], "details": closed(w, inner)}
        return ask(w, kind, text), closed(w, whole), {first: answer[first], "details": {k: answer[k] for k in last}}
    return ask(w, kind, text), closed(w, {outer: closed(w, properties)}), {outer: answer}


def several(w: Words) -> tuple[str, dict[str, Any], Any]:
    """A list of objects: names with one value each."""
    field = w.rng.choice(PERSON_FIELDS[:8])
    key, this = w.any(["name", "person"]), w.any(field.keys.split("|"))
    rows = [(name, field.draw(w)) for name in names(w, w.rng.randint(2, 3 if w.unseen else 5))]
    if not w.unseen and w.chance(0.25):
        line = w.any(["{}: {}", "- {}, {}", "{} {}", "- {}: {}"])
        text = "\n".join(line.format(name, value) for name, value in rows)
    else:
        text = " ".join(f"{name} {clause(w, field, value)}." for name, value in rows)
    listed = {"type": "array", "items": closed(w, {key: dict(TEXT), this: dict(field.schema)})}
    outer = w.any(["people", "persons", "items", "list"])
    return ask(w, "people", text), closed(w, {outer: listed}), {outer: [{key: n, this: v} for n, v in rows]}


def names_only(w: Words) -> tuple[str, dict[str, Any], Any]:
    """A list of words."""
    draw = w.any(["name", "city", "noun", "food"])
    found = list(dict.fromkeys(str(w.named(draw)) for _ in range(w.rng.randint(1, 4 if w.unseen else 6))))
    key = {
        "name": ["names", "people"],
        "city": ["cities", "places"],
        "noun": ["items", "things"],
        "food": ["items", "shopping_list", "foods"],
    }[draw]
    text = w.any(["I know {}.", "Today we talk about {}.", "On the list: {}.", "We need {}.", "There is {}."]).replace(
        "{}", said(found)
    )
    this = w.any(key)
    return ask(w, this, text), closed(w, {this: {"type": "array", "items": dict(TEXT)}}), {this: found}


def mood(w: Words) -> tuple[str, dict[str, Any], Any]:
    """The mood of a review."""
    label = w.any(MOODS)
    adjective = w.any({"positive": GOOD, "negative": BAD, "neutral": PLAIN}[label])
    thing = w.noun()
    text = (
        w.any(["The {n} was {a}.", "I think the {n} is {a}.", "This {n} is {a}!", "My {n} is {a}.", "What a {n}: {a}."])
        .replace("{n}", thing)
        .replace("{a}", adjective)
    )
    key = w.any(["sentiment", "mood", "label", "feeling"])
    order = list(MOODS)
    w.rng.shuffle(order)
    properties: dict[str, Any] = {key: choice(*order)}
    answer: dict[str, Any] = {key: label}
    if w.chance(0.4):
        properties["product"] = dict(TEXT)
        answer["product"] = thing
    asks = w.any(
        [
            "Classify: {t}",
            "What is the sentiment? {t}",
            "{t}",
            "Review: {t}",
            "How does the author feel? {t}",
            "Is this positive or negative? {t}",
        ]
    )
    return asks.replace("{t}", text), closed(w, properties), answer


JUDGED, TRAINED = (60, 12, 9, 9, 10), (42, 14, 28, 10, 6)
"""How often each shape is judged, and trained: lists of objects are the hardest to learn."""


def task(w: Words) -> tuple[str, dict[str, Any], Any]:
    """Any of the shapes above."""
    return w.rng.choices((simple, nested, several, names_only, mood), JUDGED if w.unseen else TRAINED)[0](w)


def unasked(w: Words) -> list[dict[str, Any]]:
    """JSON without a schema: the user names the keys and the values."""
    pairs = {
        w.any(["name", "city", "id", "color", "age", "title", w.noun(), w.invented()]): w.any(
            [w.name, w.city, w.integer, w.colour, w.noun, w.code]
        )()
        for _ in range(w.rng.randint(1, 3))
    }
    listed = " and ".join(f"{key} {value}" for key, value in pairs.items())
    ask = w.any(
        [
            "Give me a JSON object with {}.",
            "Write JSON with {}.",
            "Return a JSON object: {}",
            "JSON please: {}",
            "Answer with JSON: {}",
        ]
    ).replace("{}", listed)
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": json.dumps(pairs, ensure_ascii=False)}]


def example(w: Words) -> list[dict[str, Any]]:
    """A dialogue of one task, with the block that the engine appends to the system message."""
    if w.chance(0.05):
        return unasked(w)
    text, schema, answer = task(w)
    compact = w.chance(0.6)
    block = MARK + json.dumps(schema, ensure_ascii=False, separators=(",", ":") if compact else None)
    if w.chance(0.2):
        block = (
            w.any(
                [
                    "You are a helpful assistant.",
                    "Extract the data.",
                    "You extract data from text.",
                    "Extract the event information.",
                    "You are a parser.",
                ]
            )
            + "\n\n"
            + block
        )
    return [
        {"role": "system", "content": block},
        {"role": "user", "content": text},
        {"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)},
    ]
