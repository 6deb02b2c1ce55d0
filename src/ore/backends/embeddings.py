"""What all that embed have in common: shortened vectors, and the words for what cannot be done.

Pure; it knows no engine and no provider.
"""

import math
from collections.abc import Sequence

from ore.errors import CONTEXT_TOO_LONG, InvalidRequest

UNSUPPORTED_MODEL = "unsupported_model"
"""The code of a 400 for a model that does not do what the path is for."""


def shortened(vector: Sequence[float], dimensions: int) -> list[float]:
    """The first numbers of a vector, of length one again (Matryoshka representations, Kusupati et al. 2022)."""
    cut = vector[:dimensions]
    length = math.sqrt(math.fsum(number * number for number in cut))
    return [number / length for number in cut] if length else list(cut)


def check_dimensions(wanted: int | None, width: int, model: str) -> None:
    """Raise the 400 for a vector that is to be longer than the model's."""
    if wanted is not None and wanted > width:
        raise InvalidRequest(
            f"Invalid 'dimensions': the vectors of '{model}' have {width} numbers, and cannot be made longer. "
            f"Ask for {width} or fewer, or leave 'dimensions' out.",
            param="dimensions",
        )


def makes_no_embeddings(model: str) -> InvalidRequest:
    """The 400 for a model that answers."""
    return InvalidRequest(
        f"The model '{model}' makes no embeddings. Choose one whose capabilities in GET /v1/models have 'embeddings', "
        "or set [models.NAME] embeddings = true for a model here.",
        code=UNSUPPORTED_MODEL,
        param="model",
    )


def only_embeds(model: str) -> InvalidRequest:
    """The 400 for a model that answers nothing."""
    return InvalidRequest(
        f"The model '{model}' only makes embeddings. Send its texts to POST /v1/embeddings, or choose a model that "
        "answers.",
        code=UNSUPPORTED_MODEL,
        param="model",
    )


def input_too_long(at: int, tokens: int, context: int) -> InvalidRequest:
    """The 400 for an input that does not fit, by its index."""
    return InvalidRequest(
        f"'input[{at}]' is {tokens} tokens long, but this model takes {context}. Send it in parts, each for itself.",
        code=CONTEXT_TOO_LONG,
        param=f"input[{at}]",
    )
