"""Asking recommenders elsewhere over HTTP, as the engine's protocol has it.

    POST url  {user_id, surface, slate, kind, k, context, history, owned, seeds, exclude, trace_id}
    200       {trace_id?, items: [{item_id, score}]}

All that it may need of the user is in the request; what it proposes goes through the same rules and
order as what is proposed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import msgspec

from engine.recommending import ExternalError
from engine.shelf import Ranked
from engine.workspace import Recommender
from recsys.call import Call, SlateKind

LARGEST_ANSWER_BYTES = 4_000_000
LONGEST_S = 60.0
LARGEST_SCORE = 1e38
"""Scores are kept as single floats."""
_ENCODER = msgspec.json.Encoder()


class _Item(msgspec.Struct, frozen=True):
    item_id: str
    score: float


class _Answer(msgspec.Struct, frozen=True):
    items: tuple[_Item, ...]
    trace_id: str = ""


_DECODER = msgspec.json.Decoder(_Answer)


class HttpRecommenders:
    """Recommenders over HTTP; connections are kept."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Keys are read from the environment, by the names that the workspace gives."""
        self._environment = environment
        self._http: httpx.AsyncClient | None = None

    async def rank(
        self, recommender: Recommender, kind: SlateKind, call: Call, count: int, timeout_s: float
    ) -> Ranked:
        """See :class:`engine.recommending.ExternalRecommender`."""
        try:
            async with asyncio.timeout(timeout_s):
                body = await self._asked(recommender, kind, call, count)
        except TimeoutError as error:
            raise ExternalError(f"no answer within {1000 * timeout_s:.0f} ms") from error
        except httpx.HTTPError as error:
            raise ExternalError(f"{type(error).__name__}: {error}") from error
        try:
            answer = _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExternalError(f"the answer is not of the form asked for: {error}") from error
        if not all(abs(item.score) <= LARGEST_SCORE for item in answer.items):
            raise ExternalError(f"the answer holds a score beyond {LARGEST_SCORE:g}")
        ranked = tuple((item.item_id, item.score) for item in answer.items[:count])
        return Ranked(ranked, answer.trace_id[:256])

    async def _asked(
        self, recommender: Recommender, kind: SlateKind, call: Call, count: int
    ) -> bytes:
        if self._http is None:
            # Made here, since it belongs to the event loop that is running. It keeps no cookies:
            # what one unit's answer set would be sent with the next unit's call.
            jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            self._http = httpx.AsyncClient(timeout=LONGEST_S, follow_redirects=False, cookies=jar)
        async with self._http.stream(
            "POST",
            recommender.url or "",
            content=_ENCODER.encode(
                {
                    "user_id": call.user_id,
                    "surface": call.surface,
                    "slate": call.slate,
                    "kind": kind,
                    "k": count,
                    "context": call.context,
                    "history": call.history,
                    "owned": call.owned,
                    "seeds": call.seeds,
                    "exclude": call.exclude,
                    "trace_id": call.trace_id,
                }
            ),
            headers={
                "Content-Type": "application/json",
                # What is compressed could be any number of times as large as what is read of it.
                "Accept-Encoding": "identity",
                **self._key(recommender),
            },
        ) as response:
            if response.status_code != 200:
                raise ExternalError(f"answered {response.status_code}")
            body = b""
            async for part in response.aiter_raw():
                body += part
                if len(body) > LARGEST_ANSWER_BYTES:
                    raise ExternalError(f"answered more than {LARGEST_ANSWER_BYTES:,} bytes")
            return body

    def _key(self, recommender: Recommender) -> dict[str, str]:
        if recommender.key_from is None:
            return {}
        secret = self._environment.get(recommender.key_from)
        if not secret:
            raise ExternalError(f"the environment variable {recommender.key_from} holds no key")
        if not (secret.isascii() and secret.isprintable()):
            # Refused by the library, too, in words that quote the key.
            raise ExternalError(
                f"the environment variable {recommender.key_from} holds what no header can, such "
                "as the end of a line"
            )
        return {"Authorization": f"Bearer {secret}"}

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
