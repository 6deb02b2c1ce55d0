"""ORE, the Open Responses Engine: one API in front of every model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ore.app import create_app

__version__ = "0.1.0"

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> Any:
    """Import the server only when it is asked for: `import ore` and `ore --help` stay light."""
    if name == "create_app":
        from ore.app import create_app

        return create_app
    raise AttributeError(f"module 'ore' has no attribute '{name}'")
