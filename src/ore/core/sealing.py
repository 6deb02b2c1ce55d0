"""Seals what a client carries for us, so that only this installation, and only for the same owner, can open it.

AES-SIV (RFC 5297): authenticated, and deterministic, so that no nonce can ever repeat. The purpose and the owner are
authenticated with the content. It refuses to know about items, and to keep or to find a key.
"""

import base64
import binascii
import zlib
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

KEY_BYTES: Final = 64
_VERSION: Final = "ore1."


class NotOurs(ValueError):
    """A sealed text that this key, for this purpose and owner, cannot open."""


class Sealer:
    """Seals and opens JSON values under one key of `KEY_BYTES` random bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal(self, value: Any, *, purpose: str, owner: str) -> str:
        """A text of ASCII letters, digits, `.`, `-` and `_`; the same value gives the same text."""
        packed = zlib.compress(msgspec.json.encode(value))
        sealed = self._cipher.encrypt(packed, [purpose.encode(), owner.encode()])
        return _VERSION + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, text: str, *, purpose: str, owner: str) -> Any:
        """What was sealed. Raises `NotOurs`."""
        version, encoded = text[: len(_VERSION)], text[len(_VERSION) :]
        if version != _VERSION:
            raise NotOurs("it was not sealed by ORE")
        try:
            sealed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            packed = self._cipher.decrypt(sealed, [purpose.encode(), owner.encode()])
        except (binascii.Error, ValueError, InvalidTag) as problem:
            raise NotOurs("it was sealed under another key, for somebody else, or changed since") from problem
        return msgspec.json.decode(zlib.decompress(packed))
