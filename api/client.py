"""A Python client: decisions, slates, outcomes and items over HTTP; the server's errors are raised.

    with Client("https://evenhand.example.com", key=os.environ["EVENHAND_KEY"]) as evenhand:
        decision = evenhand.decide("home", user_id="u1", context={"device": "tv"})
        evenhand.outcome("watch", 1.5, decision_id=decision["decision_id"])

Requests that were not answered are sent again with the same ids, which the server counts once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

RETRIES = 3
_FIRST_WAIT_S = 0.05
_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ProblemError(Exception):
    """The server refused: ``status``, and ``errors`` with a field and a message each."""

    def __init__(self, status: int, detail: str, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.errors = tuple(errors)


class Client:
    """One server. Safe to share between threads; close it, or use it as a context."""

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 2.0) -> None:
        """A client of the server at ``url``; ``key`` is what ``evenhand keys create`` printed.

        Raises
        ------
        ValueError
            If the key holds what no key does; the message does not repeat it.
        """
        # Otherwise the HTTP library would refuse the header, with the secret in its message.
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError(
                '`key` holds other characters than letters, digits, "_" and "-"; give it as printed'
            )
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def decide(
        self,
        surface: str,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        trigger: str | None = None,
        slots: Sequence[str] | None = None,
        request_id: str | None = None,
        deadline_ms: int | None = None,
        peek: bool = False,
    ) -> dict[str, Any]:
        """The answer of ``POST /v1/decide``.

        Raises
        ------
        ProblemError
            If the server refuses.
        httpx.TransportError
            If it cannot be reached, after three more tries.
        """
        body = {
            "surface": surface,
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "context": dict(context or {}),
            "trigger": trigger,
            "slots": None if slots is None else list(slots),
            "request_id": request_id or str(uuid4()),
            "deadline_ms": deadline_ms,
            "mode": "peek" if peek else "decide",
        }
        return self._post("/v1/decide", body)

    def recommend(
        self,
        surface: str,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        slate: str | None = None,
        k: int | None = None,
        context: Mapping[str, Any] | None = None,
        seeds: Sequence[str] = (),
        exclude: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
        deadline_ms: int | None = None,
        decision_id: str | None = None,
    ) -> dict[str, Any]:
        """One slate, of ``POST /v1/recommend``; raises as :meth:`decide`.

        Sent again where no answer came, it is another slate, and the first stays in the log unseen.
        """
        body = {
            "surface": surface,
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "slate": slate,
            "k": k,
            "context": dict(context or {}),
            "seeds": list(seeds),
            "exclude": list(exclude),
            "filters": dict(filters or {}),
            "deadline_ms": deadline_ms,
            "decision_id": decision_id,
        }
        return self._post("/v1/recommend", body)

    def tell_items(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tell of up to 1,000 items, as ``POST /v1/items`` has them; raises as :meth:`decide`."""
        return self._post("/v1/items", [dict(item) for item in items])

    def expose(
        self,
        decision_id: str,
        *,
        slots: Sequence[str] | None = None,
        occurred_at: datetime | None = None,
    ) -> dict[str, Any]:
        """Say that a decision was shown; raises as :meth:`decide`."""
        body = {
            "decision_id": decision_id,
            "slots": None if slots is None else list(slots),
            "occurred_at": None if occurred_at is None else occurred_at.isoformat(),
        }
        return self._post("/v1/exposures", body)

    def outcome(
        self,
        metric: str,
        value: float,
        *,
        decision_id: str | None = None,
        user_id: str | None = None,
        occurred_at: datetime | None = None,
        outcome_id: str | None = None,
        item_id: str | None = None,
    ) -> dict[str, Any]:
        """Say what happened, for a decision or for a user; raises as :meth:`decide`."""
        body = {
            "outcome_id": outcome_id or str(uuid4()),
            "metric": metric,
            "value": value,
            "decision_id": decision_id,
            "user_id": user_id,
            "occurred_at": None if occurred_at is None else occurred_at.isoformat(),
            "item_id": item_id,
        }
        return self._post("/v1/outcomes", body)

    def explain(self, decision_id: str) -> dict[str, Any]:
        """The whole record of a decision; raises as :meth:`decide`."""
        return self._answer(self._sent("GET", _path_of(decision_id), None))

    def replay(self, decision_id: str) -> dict[str, Any]:
        """A decision made again and compared; raises as :meth:`decide`."""
        return self._post(f"{_path_of(decision_id)}/replay", None)

    def _post(self, path: str, body: object) -> dict[str, Any]:
        return self._answer(self._sent("POST", path, body))

    def _sent(self, method: str, path: str, body: object) -> httpx.Response:
        wait = _FIRST_WAIT_S
        for _ in range(RETRIES):
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TransportError:
                pass
            else:
                if response.status_code != 503:
                    return response
            time.sleep(wait)
            wait *= 2
        return self._http.request(method, path, json=body)

    @staticmethod
    def _answer(response: httpx.Response) -> dict[str, Any]:
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        raise ProblemError(
            response.status_code,
            problem.get("detail", response.reason_phrase),
            problem.get("errors", ()),
        )


def _path_of(decision_id: str) -> str:
    """The decision's route; nothing in the id may lead to another."""
    return f"/v1/decisions/{quote(decision_id, safe='')}"
