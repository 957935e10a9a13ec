"""API keys: what a caller may ask, known by the digest of a secret that is never kept."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from engine.errors import RequestError

_PREFIX = "evh_"
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Scope(StrEnum):
    """What a key may be used for; ``admin`` includes the others."""

    DECIDE = "decide"
    OUTCOMES = "outcomes"
    ITEMS = "items"
    REPORTS = "reports"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored; times in microseconds, ``revoked_at`` None while it is in force."""

    id: str
    name: str
    scopes: frozenset[Scope]
    digest: bytes
    created_at: int
    revoked_at: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RequestError(
                "name", f'is "{self.name[:64]}"; give 1 to 64 letters, digits, "_" or "-"'
            )
        if not self.scopes:
            known = ", ".join(Scope)
            raise RequestError("scope", f"is missing; give at least one of {known}")

    def allows(self, scope: Scope) -> bool:
        """Whether the key may be used for the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


def new_key(name: str, scopes: Iterable[Scope], id_: str, now_us: int) -> tuple[Key, str]:
    """A key and its secret, which is nowhere else.

    Raises
    ------
    RequestError
        If the name is none, or no scope is given.
    """
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return Key(id_, name, frozenset(scopes), digest_of(secret), now_us), secret


def digest_of(secret: str) -> bytes:
    """What is stored of a secret: its SHA-256.

    A slow hash makes guessing dear where secrets are few and guessable, as passwords are. Of 2^256
    equally likely secrets none is ever guessed, however fast the hash; a slow one would only slow
    every decision.
    """
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Keyring:
    """The keys in force, found by secret."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._by_digest = {key.digest: key for key in keys if key.revoked_at is None}

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, secret: str) -> Key | None:
        """The key of a secret, or None.

        The look-up's time may depend on digests, which nobody can choose towards a stored one; the
        comparison that admits is of constant time.
        """
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None
