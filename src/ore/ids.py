"""Identifiers: the list of prefixes, and the one function that mints them.

Ids are 128 random bits, unguessable (wire contract, section 11); they carry no time, owner or order. The core never
calls this module by itself: `new_id` is handed to whatever needs ids, so that tests can count instead.
"""

import secrets
from typing import Final, Protocol

PREFIXES: Final = {
    "response": "resp",
    "conversation": "conv",
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "shell_call": "sh",
    "local_shell_call": "lsh",
    "apply_patch_call": "apc",
    "tool_search_call": "tsc",
    "reasoning": "rs",
    "compaction": "cmp",
    "call": "call",
    "request": "req",
    "process": "proc",
    "item": "item",
}
"""What an id is for, and the prefix it wears. Item types that are not named here get `item`."""


class NewId(Protocol):
    """Mints an id for a purpose out of `PREFIXES` (an unknown purpose counts as `item`)."""

    def __call__(self, purpose: str) -> str: ...


def new_id(purpose: str) -> str:
    """Mint e.g. `resp_` and 32 hexadecimal digits."""
    return f"{PREFIXES.get(purpose, 'item')}_{secrets.token_hex(16)}"
