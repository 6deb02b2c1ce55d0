"""Classical models that tests train: small, the same each time, and saved where a test wants them."""

import random
from pathlib import Path
from typing import Any

WORDS = {
    "billing": ["invoice", "refund", "charge", "payment", "receipt", "card", "price", "subscription"],
    "support": ["crash", "error", "broken", "restart", "install", "update", "screen", "login"],
    "praise": ["love", "great", "thanks", "wonderful", "happy", "excellent", "perfect", "awesome"],
}
FILLERS = ["the", "my", "a", "please", "today", "with", "is", "and", "on", "for"]


def sentences(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts about one of three things, and what each is about; some words are of the others."""
    chance = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        label = chance.choice(list(WORDS))
        words = [*chance.choices(WORDS[label], k=3), *chance.choices(FILLERS, k=4)]
        words += chance.choices(WORDS[chance.choice(list(WORDS))], k=1)
        chance.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def text_classifier() -> Any:
    """TF-IDF and logistic regression over `sentences`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(*sentences(600, seed=1))


def wine_table() -> tuple[Any, list[str], list[str]]:
    """The wine data set: rows, names of its columns, names of its classes."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    return wine.data, list(wine.feature_names), wine.target_names[wine.target].tolist()


def named(model: Any, names: list[str]) -> Any:
    """A fitted model with the names of its features, as fitting to a data frame would leave it."""
    import numpy

    model.feature_names_in_ = numpy.array(names, dtype=object)
    return model


def wine_classifier() -> Any:
    """Gradient-boosted trees over the wine data set."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, names, labels = wine_table()
    return named(HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(rows, labels), names)


def saved(model: Any, path: Path) -> Path:
    """The model in a skops file."""
    import skops.io

    skops.io.dump(model, path)
    return path
