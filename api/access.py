"""Who may ask what, and how often: nothing is open unless a key opens it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import ceil

from starlette.responses import Response

from api.problems import problem
from engine.errors import StoreError
from engine.keys import Keyring, Scope
from engine.service import Journal
from engine.store import KeyStore

FOLLOW_EVERY_S = 1.0
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
}
_OPEN = frozenset({"/healthz", "/openapi.json"})
_SCOPES = {
    "/v1/decide": Scope.DECIDE,
    "/v1/exposures": Scope.OUTCOMES,
    "/v1/outcomes": Scope.OUTCOMES,
    "/v1/recommend": Scope.DECIDE,
    "/v1/items": Scope.ITEMS,
    "/v1/lift": Scope.REPORTS,
    "/v1/ope": Scope.REPORTS,
    "/v1/forget": Scope.ADMIN,
    "/v1/promote": Scope.ADMIN,
    "/v1/rollback": Scope.ADMIN,
    "/v1/snapshots": Scope.REPORTS,
}
_BELOW = {"/v1/decisions/": Scope.REPORTS, "/v1/items/": Scope.ITEMS}


def is_open(path: str) -> bool:
    """Whether a path is answered without a key."""
    return path in _OPEN


def scope_of(path: str) -> Scope | None:
    """The scope that a path needs; None where any key will do."""
    below = (scope for prefix, scope in _BELOW.items() if path.startswith(prefix))
    return _SCOPES.get(path) or next(below, None)


class TokenBuckets:
    """For each key, as many requests at once as one second allows, refilled steadily."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``rate`` is in requests per second, above 0; at least one request is always allowed."""
        self._rate = rate
        self._most = max(rate, 1.0)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, id_: str) -> int:
        """Take a token of a key: 0, or where none is left the whole seconds until one is."""
        now = self._clock()
        left, at = self._left.get(id_, (self._most, now))
        left = min(self._most, left + (now - at) * self._rate)
        taken = left >= 1.0
        self._left[id_] = left - taken, now
        return 0 if taken else max(1, ceil((1.0 - left) / self._rate))


class Access:
    """The keys in force, as last read, and what each has left of its rate."""

    def __init__(self, keys: KeyStore, rate: float | None, journal: Journal) -> None:
        """Read the keys; ``rate`` is in requests per second for each, None for no limit.

        Raises
        ------
        StoreError
            If the keys cannot be read.
        """
        self._keys = keys
        self._journal = journal
        self._buckets = TokenBuckets(rate) if rate else None
        self._ring = Keyring(keys.all())
        self._readable = True
        if not self._ring:
            journal.warning("no keys", message="every request is refused until one is created")

    async def follow(self) -> None:
        """Read the keys again and again; while they cannot be read, those last read hold."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            try:
                self._ring = Keyring(await asyncio.to_thread(self._keys.all))
            except StoreError as error:
                if self._readable:
                    self._journal.warning("keys unreadable", message=str(error))
                self._readable = False
            else:
                self._readable = True

    def refusal(self, path: str, authorization: bytes | None) -> Response | None:
        """The answer to a request that may not go on, or None."""
        scheme, _, secret = (authorization or b"").decode("latin-1").partition(" ")
        key = self._ring.find(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            found = "no key" if authorization is None else "none of the keys in force"
            detail = f"the request holds {found}; send `Authorization: Bearer KEY`"
            return problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
        if self._buckets and (wait_s := self._buckets.wait_s(key.id)):
            detail = f'key "{key.name}" asks more often than this server allows; ask again later'
            return problem(429, detail, headers={"Retry-After": str(wait_s)})
        scope = scope_of(path)
        if scope is not None and not key.allows(scope):
            detail = f'key "{key.name}" lacks the scope {scope}; use one that has it'
            return problem(403, detail)
        return None
