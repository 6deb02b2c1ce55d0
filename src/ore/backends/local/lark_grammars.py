"""Judges clients' Lark grammars before a token is sampled: can the engine hold a custom tool's input to them?

llguidance's dialect of Lark is what can be enforced. A grammar passes when it compiles by itself, so that it cannot
reach out of the place where it is put, and when it names no tokens, which could end a call or a turn from inside. It
refuses to repair a grammar.
"""

import re
from typing import Final

from ore.backends.local.json_schemas import compile_problem

MAX_BYTES: Final = 128 * 1024

_QUOTED: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"i?'  # a string
    r"|/(?!/)(?:[^/\\]|\\.)+/[imslux]*"  # a regular expression
    r"|(?://|#)[^\n]*",  # a comment
    re.DOTALL,
)
_TOKEN: Final = re.compile(r"<[^<>\n]*>")
_STOP: Final = re.compile(r"\[[^\]]*\bstop\b[^\]]*\]")


def lark_problem(definition: str) -> str:
    """What is wrong with a grammar, or an empty string. A hostile one can take for ever: see `grammar_process`."""
    if len(definition.encode()) > MAX_BYTES:
        return f"it is larger than {MAX_BYTES // 1024} KiB"
    bare = _QUOTED.sub('""', definition)
    if _TOKEN.search(bare):
        return "it names a token between '<' and '>'; describe text only"
    if _STOP.search(bare):
        return "it uses 'stop', which takes text back; use 'suffix' or 'lazy'"
    return compile_problem(f"%llguidance {{}}\n{definition}\n")
