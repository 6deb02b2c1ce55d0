"""The PyTorch engine: models of transformers from safetensors, and models of your own.

For a module of your own write a function without arguments that returns an `OwnModel`, and name it in the settings:
`path = "FILE.py:FUNCTION"`. It runs with your rights, in the engine's process.
"""

from ore.backends.local.torch.own_model import OwnModel

__all__ = ["OwnModel"]
