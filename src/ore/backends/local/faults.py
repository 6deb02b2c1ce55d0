"""What goes wrong with local engines, in the words that clients read."""

from ore.errors import CONTEXT_TOO_LONG, InvalidRequest, ModelFailed


def context_exceeded(tokens: int, context: int) -> InvalidRequest:
    """The 400 for a prompt that leaves no room for an answer."""
    return InvalidRequest(
        f"Your input is {tokens} tokens long, but this model's context holds {context} tokens, the answer included. "
        "Shorten the input, the tools or the history, or use a model with a larger context.",
        code=CONTEXT_TOO_LONG,
        param="input",
    )


def refused(message: str) -> InvalidRequest:
    """The engine itself did not take the request."""
    return InvalidRequest(f"The model's engine refused the request: {message[:300]}")


def failed() -> ModelFailed:
    """The engine lives, and could not answer."""
    return ModelFailed("The model's engine failed on this request. Try again; the operator's log may say more.")


def died() -> ModelFailed:
    """The engine is gone, for now."""
    return ModelFailed("The model's engine stopped while it was needed. It is being restarted: try again.")
