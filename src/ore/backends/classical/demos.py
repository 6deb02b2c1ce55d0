"""Small models to try classical serving with, trained in seconds from what is on this machine. Nothing is downloaded.

They show the way and are no models for work: the texts of `intents` are made of a few words.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.errors import StartupError


class Trained(Struct, frozen=True):
    """A fitted model. `score` is on rows that it has not seen: accuracy, or R2 of a regression."""

    model: Any
    score: float
    example: str
    """An input to ask it with."""


class Demo(Struct, frozen=True):
    what: str
    train: Callable[[], Trained]


def train_demo(name: str, out: Path) -> Trained:
    """Train the demo of that name and save it. Raises `StartupError` without scikit-learn."""
    try:
        import skops.io
    except ImportError:
        raise StartupError("Training needs scikit-learn; pip install 'open-responses-engine[sklearn]'.") from None
    trained = DEMOS[name].train()
    skops.io.dump(trained.model, out)
    return trained


def _wine() -> Trained:
    from sklearn.datasets import load_wine
    from sklearn.ensemble import HistGradientBoostingClassifier

    wine = load_wine()
    return _tabular(HistGradientBoostingClassifier(random_state=0), wine, wine.target_names[wine.target])


def _diabetes() -> Trained:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import HistGradientBoostingRegressor

    diabetes = load_diabetes()
    return _tabular(HistGradientBoostingRegressor(max_iter=50, random_state=0), diabetes, diabetes.target)


def _tabular(model: Any, data: Any, target: Any) -> Trained:
    """Fit to three quarters of a table. The names of its columns become the model's, as from a data frame."""
    import numpy
    from sklearn.model_selection import train_test_split

    names = list(data.feature_names)
    known, unseen, known_target, unseen_target = train_test_split(data.data, target, random_state=0)
    score = float(model.fit(known, known_target).score(unseen, unseen_target))
    model.feature_names_in_ = numpy.array(names, dtype=object)
    example = msgspec.json.encode(dict(zip(names, unseen[0].tolist(), strict=True))).decode()
    return Trained(model, score, example)


def _intents() -> Trained:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    chance = random.Random(0)  # noqa: S311 - the same each time
    told = [(_sentence(intent, chance), intent) for intent in _ABOUT for _ in range(200)]
    chance.shuffle(told)
    texts, intents = [text for text, _ in told], [intent for _, intent in told]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    score = float(model.fit(texts[:-150], intents[:-150]).score(texts[-150:], intents[-150:]))
    return Trained(model, score, "Where is the invoice for my last order?")


def _sentence(intent: str, chance: random.Random) -> str:
    about = " and the ".join(chance.sample(_ABOUT[intent], chance.choice((1, 2))))
    return chance.choice(_FRAMES).format(about)


_FRAMES: Final = (
    "I have a question about the {}",
    "Where is the {}?",
    "Can you help me with the {}, please?",
    "What is the matter with the {} today",
    "Tell me about the {}",
    "the {} again",
)

_ABOUT: Final[Mapping[str, list[str]]] = {
    "billing": ["invoice", "refund", "charge on my card", "price", "subscription", "receipt", "payment"],
    "delivery": ["parcel", "tracking number", "courier", "order that is late", "address", "package", "shipment"],
    "technical": ["crash", "error message", "login", "update", "password reset", "broken screen", "slow app"],
    "code": ["python function", "stack trace", "unit test", "regular expression", "compiler", "merge conflict", "bug"],
}
"""What people of each intent speak of."""

DEMOS: Final[Mapping[str, Demo]] = {
    "wine": Demo("13 measurements of a wine to one of three growers: gradient-boosted trees", _wine),
    "diabetes": Demo("10 measurements of a patient to the course of the disease: a regression", _diabetes),
    "intents": Demo("a sentence to billing, delivery, technical or code: TF-IDF, for routing and the guard", _intents),
}
