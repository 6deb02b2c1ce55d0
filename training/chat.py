"""Conversation: small talk, questions about ORE, instructions in a system message, and memory of earlier turns.

Answers are short and fixed, or copy words of the user. It refuses to invent: what the model cannot know it says so.
The sentences stand in `tables/`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import words
from words import Words

Message = dict[str, Any]
DATA = Path(__file__).parent / "tables"
SAYINGS: dict[str, Any] = tomllib.loads((DATA / "chat.toml").read_text())
UNKNOWN = "I am a very small model. I do not know that."
CANNOT_CALCULATE = "I am a very small model. I cannot calculate that reliably."
BLIND = "I cannot see images. I am a very small text model."
NO_FILES = "I cannot read files. I am a very small text model."
NEVER_TOLD = "You have not told me that."
NOTED = "OK, I will remember that."
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def says(text: str) -> Message:
    """The assistant's message."""
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def turns_of(name: str) -> dict[str, list[str]]:
    """A table of answers, each with the questions that ask for it."""
    table = tomllib.loads((DATA / f"{name}.toml").read_text())
    return {turn["answer"]: turn["questions"] for turn in table["turn"]}


TALK, ORE = turns_of("talk"), turns_of("ore")


def table_turn(w: Words, table: dict[str, list[str]]) -> list[Message]:
    """A question of a table and its answer; an eighth of the questions is held out."""
    answer = w.any(list(table))
    questions = table[answer]
    fitting = [q for i, q in enumerate(questions) if (i > 2 and words.held_out(q)) == w.unseen]
    question = w.any(fitting or questions)
    if w.chance(0.25):
        question = w.any(SAYINGS["prefixes"]) + question
    if w.chance(0.12):
        question = question.lower()
    if w.chance(0.1):
        question = question.rstrip("?.!")
    return [user(question), says(answer)]


def small_turn(w: Words) -> list[Message]:
    """One turn of small talk."""
    return table_turn(w, TALK)


def ore_turn(w: Words) -> list[Message]:
    """One question about ORE."""
    return table_turn(w, ORE)


def small_talk(w: Words) -> list[Message]:
    """One to three plain turns."""
    return [m for _ in range(w.any((1, 1, 1, 2, 3))) for m in small_turn(w)]


def about_ore(w: Words) -> list[Message]:
    """One to three questions about ORE."""
    return [m for _ in range(w.any((1, 1, 2, 3))) for m in ore_turn(w)]


def unknown(w: Words) -> list[Message]:
    """A question that only a larger model could answer."""
    return [user(w.fill(w.any(SAYINGS["unknown"]))), says(UNKNOWN)]


def echo(w: Words) -> list[Message]:
    """Say what the user wants to hear: the plainest copying."""
    shapes = [
        "{word}",
        "{word}",
        "{word} {word}",
        "{word} {word} {word}",
        "{phrase}",
        "{invented} {invented}",
        "{code}",
    ]
    text = w.fill(w.any([*shapes, "{integer}", "{city}", "{full_name}"]))
    if w.chance(0.12):
        word, n = w.word(), w.rng.randint(2, 4)
        ask = w.any([f"Say {word} {NUMBERS[n - 1]} times.", f"Write {word} {n} times."])
        return [user(ask), says(" ".join([word] * n))]
    if w.chance(0.1):
        return [user(w.any(SAYINGS["capitals"]).replace("{}", text)), says(text.upper())]
    return [user(w.any(SAYINGS["repeat"]).replace("{}", text)), says(text)]


def drill(w: Words) -> list[Message]:
    """Long copies in several shapes: the exercise from which a small network learns to copy at all."""
    draw = w.any([w.invented, w.invented, w.name, w.city, w.noun, w.word, w.code, lambda: str(w.integer())])
    rows = [draw() for _ in range(w.rng.randint(3, 16))]
    if w.chance(0.2):
        text = " ".join(rows)
        return [user(w.any(["Repeat: {}", "Say {}", "Copy this: {}", "Write: {}"]).replace("{}", text)), says(text)]
    if w.chance(0.25):
        ask = w.any(["As a JSON list: {}", "JSON list: {}", "Write as JSON: {}"])
        return [user(ask.replace("{}", ", ".join(rows))), says(json.dumps(rows, ensure_ascii=False))]
    return pair_drill(w, dict(zip((w.any([w.noun, w.invented])() for _ in rows[:8]), rows, strict=False)))


def pair_drill(w: Words, pairs: dict[str, str]) -> list[Message]:
    """Values to be found by their keys."""
    lines = "\n".join(f"{key}: {value}" for key, value in pairs.items())
    asked = w.rng.sample(list(pairs), min(len(pairs), w.rng.randint(1, 4)))
    shape = w.rng.randrange(3)
    if shape == 0:
        return [user(w.any(["As JSON:", "Write as JSON:"]) + "\n" + lines), says(json.dumps(pairs, ensure_ascii=False))]
    if shape == 1:
        text = f"{w.any(['From this give', 'Give only'])} {' and '.join(asked)}:\n{lines}"
        return [user(text), says(json.dumps({key: pairs[key] for key in asked}, ensure_ascii=False))]
    turns = [user(lines), says(NOTED)]
    for key in asked:
        turns += [user(w.any([f"What is {key}?", f"{key}?", f"And {key}?"])), says(pairs[key])]
    return turns


def counting(w: Words) -> list[Message]:
    """Count, add small numbers, or know that a sum is too hard; capitals, opposites, days."""
    return w.rng.choices([count, add, too_hard, capital_of, opposite_of, day_after], [30, 25, 5, 20, 10, 10])[0](w)


def count(w: Words) -> list[Message]:
    """Count up, sometimes with the limits in words."""
    start, end = (1, w.rng.randint(2, 12)) if w.chance(0.7) else sorted(w.rng.sample(range(1, 21), 2))
    asks = SAYINGS["count"] + (["Count to {b}.", "count to {b}"] if start == 1 else [])
    spelt = end <= 12 and w.chance(0.3)
    a, b = (NUMBERS[start - 1], NUMBERS[end - 1]) if spelt else (str(start), str(end))
    ask = w.any(asks).replace("{a}", a).replace("{b}", b)
    return [user(ask), says(", ".join(str(n) for n in range(start, end + 1)))]


def add(w: Words) -> list[Message]:
    """A sum of two small numbers."""
    a, b = w.rng.randint(0, 10), w.rng.randint(0, 10)
    return [user(w.any(SAYINGS["add"]).format(a, b)), says(str(a + b))]


def too_hard(w: Words) -> list[Message]:
    """A sum that the model must not pretend to know."""
    ask = w.any(SAYINGS["too_hard"]).format(w.rng.randint(100, 9999), w.rng.randint(11, 9999))
    return [user(ask), says(CANNOT_CALCULATE)]


def capital_of(w: Words) -> list[Message]:
    """The capital of a country."""
    country = w.any(list(words.LISTS["capitals"]))
    answer = f"The capital of {country} is {words.LISTS['capitals'][country]}."
    return [user(w.any(SAYINGS["capital_of"]).format(country)), says(answer)]


def opposite_of(w: Words) -> list[Message]:
    """The opposite of an adjective."""
    word = w.any(list(words.LISTS["opposites"]))
    answer = f"The opposite of {word} is {words.LISTS['opposites'][word]}."
    return [user(w.any(SAYINGS["opposite_of"]).format(word)), says(answer)]


def day_after(w: Words) -> list[Message]:
    """The day after a day."""
    i = w.rng.randrange(7)
    return [user(w.any(SAYINGS["day_after"]).format(words.DAYS[i])), says(f"{words.DAYS[(i + 1) % 7]}.")]


def attachment(w: Words) -> list[Message]:
    """An image or a file that the model cannot see, as the engine announces it."""
    if w.chance(0.65):
        kind = w.any(["image/png", "image/jpeg", "image/webp", "image/gif"])
        size = f", {w.rng.randint(1, 2000)}x{w.rng.randint(1, 2000)}" if w.chance(0.7) else ""
        line = f"[image attached: {kind}{size}; this model cannot see images]"
        ask, answer = w.fill(w.any(SAYINGS["about_image"])), BLIND
    else:
        size = w.any(["", "", f", {w.rng.randint(1, 900)} kB"])
        end = w.any(["", "; this model cannot read files"])
        line = f"[file attached: {w.noun()}.{w.any(['pdf', 'docx', 'csv', 'xlsx', 'zip'])}{size}{end}]"
        ask, answer = w.any(SAYINGS["about_file"]), NO_FILES
    parts = [p for p in ([ask, line] if w.chance(0.7) else [line, ask]) if p]
    return [user(w.any(["\n", "\n", " "]).join(parts)), says(answer)]


@dataclass(frozen=True)
class Fact:
    """Something to remember: what the user tells, the reply, the later question, the answer."""

    tell: str
    reply: str
    ask: str
    answer: str


def fact(w: Words) -> Fact:
    """A fact about the user."""
    table = SAYINGS["fact"]
    kind = w.rng.choices(table, [f.get("weight", 1) for f in table])[0]
    drawn = {"x": str(w.named(kind["source"])), "animal": w.animal(), "noun": w.noun()}

    def put(text: str) -> str:
        for key, value in drawn.items():
            text = text.replace(f"{{{key}}}", value)
        return text

    return Fact(put(w.any(kind["tells"])), put(kind["reply"]), put(w.any(kind["asks"])), put(kind["answer"]))


FILLERS: list[Callable[[Words], list[Message]]] = [small_turn, ore_turn, echo, counting, unknown]


def filler(w: Words) -> list[Message]:
    """A turn that has nothing to do with what is to be remembered."""
    return w.rng.choices(FILLERS, (4, 3, 3, 2, 1))[0](w)


def memory(w: Words) -> list[Message]:
    """Facts told and asked for later; sometimes in one message, sometimes never told."""
    shape = w.rng.random()
    first = fact(w)
    if shape < 0.1:
        ask = first.ask if "did I" not in first.ask else "What is my name?"
        return [*(filler(w) if w.chance(0.5) else []), user(ask), says(NEVER_TOLD)]
    if shape < 0.22:
        return [user(f"{first.tell} {first.ask}"), says(first.answer)]
    if shape < 0.3:
        said = filler(w)
        before = filler(w) if w.chance(0.5) else []
        return [*before, *said, user(w.any(SAYINGS["last_message"])), says(f'You said: "{said[-2]["content"]}"')]
    facts = [first]
    while len(facts) < w.any((1, 1, 2, 2, 3)):
        other = fact(w)
        if other.answer.split()[:3] not in [f.answer.split()[:3] for f in facts]:
            facts.append(other)
    messages = told(w, facts)
    for _ in range(w.any((0, 0, 0, 1, 1, 2))):
        messages += filler(w)
    w.rng.shuffle(facts)
    return messages + [m for f in facts for m in (user(f.ask), says(f.answer))]


def told(w: Words, facts: list[Fact]) -> list[Message]:
    """The turns in which a user tells facts: all in one message, or one after the other."""
    if len(facts) > 1 and w.chance(0.3):
        tells = [f.tell for f in facts]
        joined = " and ".join(t.rstrip(".") for t in tells) + "." if w.chance(0.5) else " ".join(tells)
        return [user(joined), says(NOTED)]
    messages = []
    for f in facts:
        messages += [user(f.tell), says(f.reply)]
        if w.chance(0.25):
            messages += filler(w)
    return messages


def persona(w: Words) -> list[Message]:
    """A name in the system message, asked for."""
    name = w.name()
    text = w.any(SAYINGS["persona"]).replace("{role}", w.any(words.LISTS["personas"])).replace("{}", name)
    am = ["Who are you?", "Who are you", "Introduce yourself.", "Hello, who are you?", "Hi! Who are you?"]
    ask = w.any([*am, "What is your name?", "What's your name?"])
    messages = [system(text), *(filler(w) if w.chance(0.3) else [])]
    messages += [user(ask), says(f"I am {name}." if ask in am else f"My name is {name}.")]
    return messages + (filler(w) if w.chance(0.3) else [])


def instructed(w: Words) -> list[Message]:
    """A rule in the system message that changes the form of any answer."""
    word, rule = w.word(), w.any(SAYINGS["rule"])
    turns: list[Message] = []
    for _ in range(w.any((1, 1, 2))):
        turns += w.any([small_turn, small_turn, ore_turn, echo])(w)
    changes: dict[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower}
    if rule["form"] in changes:
        turns = small_turn(w)
    change = changes.get(rule["form"], lambda text: str(rule["form"]).replace("{x}", word).replace("{}", text))
    text = w.any(rule["says"]).replace("{x}", word)
    if w.chance(0.3):
        text = w.any(["You are a helpful assistant. ", "You are an assistant. ", f"You are {w.name()}. "]) + text
    return [system(text), *(says(change(m["content"])) if m["role"] == "assistant" else m for m in turns)]


def in_language(w: Words) -> list[Message]:
    """Greetings in the language that the system message wants; one-word answers."""
    if w.chance(0.25):
        question = w.any(list(SAYINGS["one_word"]))
        rules = ["Answer with one word.", "Answer in one word.", "Use one word only.", "Reply with a single word."]
        return [system(w.any(rules)), user(question), says(SAYINGS["one_word"][question])]
    language = w.any(["German", "French", "Spanish", "English", "Italian"])
    rules = [
        "Answer in {}.",
        "Speak {}.",
        "Always answer in {}.",
        "Reply in {}.",
        "You speak {}.",
        "Respond only in {}.",
    ]
    rule = w.any([*rules, "You are a helpful assistant. Answer in {}."])
    greeting = w.any(SAYINGS["greeting"])
    return [system(rule.format(language)), user(w.any(greeting["says"])), says(greeting[language])]


def plain_system(w: Words) -> list[Message]:
    """A system message that changes nothing, or that tells something of the user."""
    if w.chance(0.3):
        name, city = w.name(), w.city()
        named = [system(f"The user is called {name}."), user("What is my name?"), says(f"Your name is {name}.")]
        homed = [system(f"The user lives in {city}."), user("Where do I live?"), says(f"You live in {city}.")]
        return w.any([named, homed])
    text = w.fill(w.any(SAYINGS["idle_system"]))
    if w.chance(0.35):
        more = [w.fill(w.any(SAYINGS["idle_sentences"])) for _ in range(w.rng.randint(1, 6))]
        text = " ".join([text, *more])
    return [system(text), *w.any([filler, filler, memory, attachment])(w)]
