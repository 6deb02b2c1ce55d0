"""What the two ends of an engine process in Python say to each other, over a Unix socket.

Each message is a frame: its length in four bytes, then MessagePack. `worker_engine` is the near end, `worker_server`
the far one. `key` is the near end's number for a question or a sampling; keys of a connection are never used again.
"""

import struct
from typing import Final

import msgspec
from msgspec import Struct

from ore.backends.local.engine import Facts, Generation, Piece

HEAD: Final = struct.Struct(">I")


class Hello(Struct, frozen=True, tag="hello"):
    """The first message of a connection: the key of the far end's parameters."""

    api_key: str


class AskFacts(Struct, frozen=True, tag="facts"):
    key: int


class Tokenize(Struct, frozen=True, tag="tokenize"):
    key: int
    text: str
    add_special: bool
    parse_special: bool


class Begin(Struct, frozen=True, tag="begin"):
    key: int
    generation: Generation


class Cancel(Struct, frozen=True, tag="cancel"):
    """Stop sampling. Nothing more is said about the key."""

    key: int


class Told(Struct, frozen=True, tag="told"):
    key: int
    facts: Facts


class Tokens(Struct, frozen=True, tag="tokens"):
    key: int
    tokens: list[int]


class Pieces(Struct, frozen=True, tag="pieces"):
    """What was sampled since the last time; the last piece of a sampling has an `end`."""

    key: int
    pieces: list[Piece]


class Fault(Struct, frozen=True, tag="fault"):
    """No answer. `refused`: the request is to blame, and `message` says why (a 400)."""

    key: int
    message: str
    refused: bool = False
    param: str | None = None
    code: str | None = None


Question = AskFacts | Tokenize | Begin | Cancel
ToFar = Hello | Question
ToNear = Told | Tokens | Pieces | Fault

_encode = msgspec.msgpack.Encoder().encode
decode_for_far = msgspec.msgpack.Decoder(ToFar).decode
decode_for_near = msgspec.msgpack.Decoder(ToNear).decode


def frame(message: ToFar | ToNear) -> bytes:
    """A message as it goes over the socket."""
    body = _encode(message)
    return HEAD.pack(len(body)) + body
