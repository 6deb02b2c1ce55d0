"""The label of one text: what routing picks targets by, and what the guard refuses by. It knows neither of them."""

from collections.abc import Collection, Sequence

from ore.backends.base import JsonObject
from ore.backends.classical.backend import Classical
from ore.backends.classical.predictor import key_of
from ore.errors import StartupError


class Labelling:
    """A text classifier by its labels alone. `labels` are those that somebody relies on."""

    def __init__(self, backend: Classical, labels: Collection[str]) -> None:
        self.backend = backend
        self.labels = labels

    def check(self) -> None:
        """Raise `StartupError`, once the model is loaded, unless it classifies texts and knows these labels."""
        name, predictor = self.backend.name, self.backend.predictor
        if not predictor.is_text or predictor.kind != "classification":
            raise StartupError(
                f"The model {name} does not classify texts; name a classifier that begins with a text vectorizer."
            )
        known = [key_of(label) for label in predictor.classes]
        if foreign := [label for label in self.labels if label not in known]:
            raise StartupError(f"The model {name} has no label {foreign[0]}; it knows {', '.join(known)}.")

    async def classify(self, text: str) -> str:
        """The label of a text. Raises `QueueFull` or `ServerFault`."""
        (answer,) = await self.backend.predict([text])
        return key_of(answer["label"])


class Refusing(Labelling):
    """Refuses texts of these labels: by the label, or where these are as likely as `threshold`, together."""

    def __init__(self, backend: Classical, labels: Collection[str], threshold: float) -> None:
        super().__init__(backend, labels)
        self._threshold = threshold

    def check(self) -> None:
        super().check()
        if self._threshold and not self.backend.predictor.probabilities:
            raise StartupError(f"The model {self.backend.name} gives no probabilities; leave guard.threshold out.")

    async def refuses(self, texts: Sequence[str]) -> bool:
        """Whether one of these is refused. Raises `QueueFull` or `ServerFault`."""
        return any(map(self._is_refused, await self.backend.predict(texts)))

    def _is_refused(self, answer: JsonObject) -> bool:
        if not self._threshold:
            return key_of(answer["label"]) in self.labels
        share: float = sum(answer["probabilities"][label] for label in self.labels)
        return share >= self._threshold
