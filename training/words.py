"""Vocabularies of the generator, each split into words for training and words held out for the evaluation.

A word belongs to one side for ever: `held_out(word)` is a checksum, so the sides cannot mix and no list of them is
kept. Invented words are made of syllables and are unlimited; they force the model to copy. It refuses to build
sentences: that is the work of the skills.
"""

from __future__ import annotations

import random
import re
import tomllib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LISTS = tomllib.loads((Path(__file__).parent / "tables" / "words.toml").read_text())
NAMES: list[str] = LISTS["names"]
SURNAMES: list[str] = LISTS["surnames"]
CITIES: list[str] = LISTS["cities"]
COLOURS: list[str] = LISTS["colours"]
ANIMALS: list[str] = LISTS["animals"]
FOODS: list[str] = LISTS["foods"]
SPORTS: list[str] = LISTS["sports"]
JOBS: list[str] = LISTS["jobs"]
NOUNS: list[str] = LISTS["nouns"]
VERBS: list[str] = LISTS["verbs"]
ADJECTIVES: list[str] = LISTS["adjectives"]
DAYS: list[str] = LISTS["days"]
MONTHS: list[str] = LISTS["months"]
LANGUAGES: list[str] = LISTS["languages"]
COMPANIES: list[str] = LISTS["companies"]
TITLES: list[str] = LISTS["titles"]
PHRASES: list[str] = LISTS["phrases"]
TOPICS: list[str] = LISTS["topics"]
ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "y",
    "z",
    "br",
    "cr",
    "dr",
    "fr",
    "gr",
    "kl",
    "pl",
    "pr",
    "st",
    "tr",
    "sh",
    "ch",
    "th",
    "qu",
    "bl",
    "gl",
    "sk",
    "sp",
]
VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ea", "oo", "ou", "ia"]
CODAS = ["", "", "", "n", "r", "l", "s", "t", "x", "m", "k", "nd", "rn", "th", "sk", "p", "v", "ck", "ll"]


LISTED = sorted({word.lower() for word in NAMES + CITIES + NOUNS + VERBS + FOODS + JOBS if word.isalpha()})


def held_out(word: str) -> bool:
    """Whether a word is kept away from training (one in eight)."""
    return zlib.crc32(word.lower().encode()) % 8 == 0


class Words:
    """A seeded source of words of one side of the split.

    `unseen` selects the held-out side. `ALWAYS` words are examples that a newcomer types; they are trained on.
    """

    ALWAYS = frozenset({"San Francisco", "Paris", "Berlin", "London", "Tokyo", "New York", "Alice", "Bob", "Ada"})

    def __init__(self, rng: random.Random, unseen: bool) -> None:
        self.rng = rng
        self.unseen = unseen

    def fits(self, word: str) -> bool:
        """Whether the word is on this side."""
        return (held_out(word) and word not in self.ALWAYS) == self.unseen

    def pick(self, words: Sequence[str]) -> str:
        """A word of a list, of this side."""
        while True:
            word = self.rng.choice(words)
            if self.fits(word):
                return word

    def any(self, options: Sequence[T]) -> T:
        """One of a closed list (colours, days, ways to ask): no split."""
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        """True with the probability."""
        return self.rng.random() < probability

    def named(self, kind: str) -> str | int | float:
        """A word of the kind that a method of this class is named for."""
        return getattr(self, kind)()  # type: ignore[no-any-return]

    def fill(self, text: str) -> str:
        """Replace each {kind} in a text by a word of that kind."""
        return re.sub(r"\{(\w+)\}", lambda match: str(self.named(match[1])), text)

    def invented(self, capital: bool = False, syllables: int = 0) -> str:
        """A word that does not exist; in training it is often spliced of listed words, so that each of their tokens is
        copied now and then. The whole words that are held out are not among them."""
        while True:
            if not self.unseen and not syllables and self.chance(0.4):
                word = self.spliced()
                if 3 <= len(word) <= 12 and self.fits(word) and word not in LISTED:
                    return word.capitalize() if capital else word
            count = syllables or self.rng.choice((1, 2, 2, 2, 3))
            word = "".join(
                self.rng.choice(ONSETS) + self.rng.choice(VOWELS) + self.rng.choice(CODAS) for _ in range(count)
            )
            if 3 <= len(word) <= 11 and self.fits(word):
                return word.capitalize() if capital else word

    def spliced(self) -> str:
        """The beginning of a word, or all of it, and the end of another."""
        head, tail = self.rng.choice(LISTED), self.rng.choice(LISTED)
        cut = len(head) if self.chance(0.4) else self.rng.randint(2, len(head))
        return head[:cut] + tail[self.rng.randint(0, len(tail) - 2) :]

    def name(self) -> str:
        """A first name, a third of them invented."""
        return self.invented(True) if self.chance(0.35) else self.pick(NAMES)

    def full_name(self) -> str:
        """A first name and a family name."""
        last = self.invented(True) if self.chance(0.4) else self.pick(SURNAMES)
        return f"{self.name()} {last}"

    def person(self) -> str:
        """A first name, sometimes with a family name."""
        return self.full_name() if self.chance(0.2) else self.name()

    def city(self) -> str:
        """A city; a quarter of them invented, some of two words."""
        if not self.unseen and self.chance(0.2):
            head = self.any(
                ["El", "La", "Fort", "Mount", "North", "Santa", "Rio", self.invented(True), self.invented(True)]
            )
            return f"{head} {self.invented(True)}"
        if self.chance(0.25):
            prefix = self.any(["New ", "San ", "Port ", "Saint ", "Upper "]) if self.chance(0.2) else ""
            return prefix + self.invented(True)
        return self.pick(CITIES)

    def noun(self) -> str:
        """A thing, some invented."""
        return self.invented() if self.chance(0.2) else self.pick(NOUNS)

    def thing(self) -> str:
        """A thing, often with an adjective."""
        return f"{self.any(ADJECTIVES)} {self.noun()}" if self.chance(0.4) else self.noun()

    def word(self) -> str:
        """Any word to copy."""
        return self.any([self.invented, self.noun, self.colour, self.animal, self.food])()

    def colour(self) -> str:
        """A colour, seldom invented."""
        return self.invented() if self.chance(0.15) else self.any(COLOURS)

    def adjective(self) -> str:
        """An adjective."""
        return self.any(ADJECTIVES)

    def job(self) -> str:
        """A profession."""
        return self.any(JOBS)

    def company(self) -> str:
        """An invented company."""
        return self.invented(True)

    def age(self) -> int:
        """A person's age."""
        return self.rng.randint(5, 95)

    def year(self) -> int:
        """A year."""
        return self.rng.randint(1000, 2026)

    def animal(self) -> str:
        """An animal."""
        return self.any(ANIMALS)

    def food(self) -> str:
        """A food, seldom invented."""
        return self.invented() if self.chance(0.15) else self.any(FOODS)

    def integer(self) -> int:
        """A whole number, mostly small."""
        top = self.rng.choice((9, 12, 30, 99, 99, 200, 999, 5000, 99999))
        return self.rng.randint(1, top)

    def decimal(self) -> float:
        """A number with one or two decimals, never a whole one (engines print 79.0 as 79)."""
        value = round(self.rng.uniform(0.1, self.rng.choice((9, 99, 999))), self.rng.choice((1, 2)))
        return value if value % 1 else value + 0.5

    def date(self) -> str:
        """A date as 2026-05-17."""
        return f"20{self.rng.randint(19, 32)}-{self.rng.randint(1, 12):02}-{self.rng.randint(1, 28):02}"

    def time(self) -> str:
        """A time of day as 09:30."""
        return f"{self.rng.randint(0, 23):02}:{self.rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"

    def email(self) -> str:
        """An address under a reserved domain."""
        who = (self.invented() if self.chance(0.5) else self.pick(NAMES)).lower()
        return f"{who}@{self.any(['example.com', 'example.org', 'example.net', self.invented() + '.example'])}"

    def code(self) -> str:
        """An identifier such as A-1234."""
        letters = "".join(self.rng.choice("ABCDEFGHKLMNPQRSTUVWXYZ") for _ in range(self.rng.randint(1, 3)))
        return f"{letters}{self.rng.choice(('-', '', '_'))}{self.rng.randint(10, 99999)}"

    def verb(self) -> str:
        """What one can do to a thing."""
        return self.any(VERBS).replace("_", " ")

    def sport(self) -> str:
        """A sport."""
        return self.any(SPORTS)

    def phrase(self) -> str:
        """A short text, often with invented words in it; in training seldom one of the list."""
        if not self.unseen and self.chance(0.6):
            return self.fill(self.any(LISTS["phrase_shapes"]))
        shapes = ["the {noun} is {adjective}", "{name} has the {thing}", "buy {age} {noun}s", "meet {name} in {city}"]
        if self.chance(0.45):
            return self.fill(self.any([*shapes, "{invented} {invented}", "call {name} at {time}"]))
        return self.pick(PHRASES)

    def topic(self) -> str:
        """Something to search for."""
        if not self.unseen and self.chance(0.5):
            return self.fill(self.any(LISTS["topic_shapes"]))
        if self.chance(0.35):
            return f"{self.invented()} {self.noun()}s"
        return self.pick(TOPICS)

    def title(self) -> str:
        """The title of an event."""
        if not self.unseen and self.chance(0.6):
            title = self.fill(self.any(LISTS["title_shapes"]))
            return title[0].upper() + title[1:]
        return (
            f"{self.invented(True)} {self.any(['meeting', 'party', 'call', 'workshop'])}"
            if self.chance(0.3)
            else self.pick(TITLES)
        )
