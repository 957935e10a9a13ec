"""Clients that decide, expose and follow up at random, and remember what they were told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from threading import Event
from typing import Any

import httpx

Body = Any
Sent = tuple[str, Body]

DECIDE, EXPOSE, REPORT = "/v1/decide", "/v1/exposures", "/v1/outcomes"
USERS = 30
SHARED = 4
"""How many requests in a row have the same shared id, so that several clients send it at once."""


@dataclass
class Told:
    """What was sent to a server, and what of it the server said it had stored."""

    requests: dict[str, Body] = field(default_factory=dict)
    answers: defaultdict[str, list[Body]] = field(default_factory=lambda: defaultdict(list))
    exposures_sent: set[str] = field(default_factory=set)
    exposures: set[str] = field(default_factory=set)
    outcomes_sent: dict[str, Body] = field(default_factory=dict)
    outcomes: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """How many things are acknowledged, each counted once."""
        return len(self.answers) + len(self.exposures) + len(self.outcomes)

    def sending(self, path: str, body: Body) -> None:
        """Note what may be stored from now on."""
        if path == DECIDE:
            self.requests[body["request_id"]] = body
        elif path == EXPOSE:
            self.exposures_sent.add(body["decision_id"])
        else:
            self.outcomes_sent |= {outcome["outcome_id"]: outcome for outcome in body}

    def heard(self, path: str, body: Body, response: httpx.Response) -> None:
        """Note what must be stored from now on."""
        reply = response.json()
        if response.status_code != 200 or reply.get("fallback"):
            self.refusals.append(f"{path} {response.status_code}: {response.text[:300]}")
        elif path == DECIDE:
            self.answers[body["request_id"]].append(reply)
        elif path == EXPOSE:
            self.exposures.add(body["decision_id"])
        elif reply["accepted"] + reply["duplicates"] != len(body):
            self.refusals.append(f"{path} of {len(body)}: {reply}")
        else:
            self.outcomes |= {outcome["outcome_id"] for outcome in body}


class Client:
    """One client; what it was not answered when the server died it sends again to the next."""

    def __init__(self, name: str, seed: int, shared: Iterator[int]) -> None:
        """``shared`` counts on for all clients together."""
        self.told = Told()
        self._name = name
        self._random = Random(f"{seed} {name}")
        self._shared = shared
        self._number = 0
        self._unsure: Sent | None = None
        self._decisions: list[Body] = []
        self._stopping = Event()

    def work(self, url: str) -> None:
        """Send one thing after the other until the server is gone, or told to stop."""
        self._stopping.clear()
        with httpx.Client(base_url=url, timeout=30) as http:
            while not self._stopping.is_set() and self._send(http):
                pass

    def stop(self) -> None:
        """Have the work end after what is being sent."""
        self._stopping.set()

    def settle(self, url: str) -> None:
        """Send again what was not answered."""
        with httpx.Client(base_url=url, timeout=30) as http:
            while self._unsure:
                self._send(http)

    def _send(self, http: httpx.Client) -> bool:
        self._unsure = path, body = self._unsure or self._next()
        self.told.sending(path, body)
        try:
            response = http.post(path, json=body)
        except httpx.TransportError:
            return False
        self._unsure = None
        self.told.heard(path, body, response)
        if path == DECIDE and response.status_code == 200:
            self._decisions.append(response.json())
        return True

    def _next(self) -> Sent:
        kinds = [self._decide, self._share, self._repeat, self._expose, self._report, self._again]
        if not self._decisions:
            return self._decide()
        return self._random.choices(kinds, (6, 2, 2, 4, 6, 2))[0]()

    def _id(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _decide(self) -> Sent:
        user = f"u{self._random.randrange(USERS)}"
        return DECIDE, _request(self._id(), user, self._random.randrange(5))

    def _share(self) -> Sent:
        number = next(self._shared) // SHARED
        return DECIDE, _request(f"shared-{number}", f"u{number % USERS}", number % 5)

    def _repeat(self) -> Sent:
        return DECIDE, self.told.requests[self._random.choice(list(self.told.answers))]

    def _expose(self) -> Sent:
        return EXPOSE, {"decision_id": self._recent()["decision_id"]}

    def _report(self) -> Sent:
        outcomes: list[Body] = []
        for _ in range(self._random.choice((1, 1, 1, 5))):
            decision = self._recent()
            subject = (
                {"decision_id": decision["decision_id"]}
                if self._random.random() < 0.8
                else {"user_id": decision["unit"].removeprefix("u:")}
            )
            value = self._random.randrange(4)
            outcomes.append(
                {"outcome_id": self._id(), "metric": "watch", "value": value, **subject}
            )
        if self._random.random() < 0.3:
            corrected = outcomes[-1]
            id_ = {"outcome_id": self._id(), "corrects": corrected["outcome_id"], "value": 9}
            outcomes.append(corrected | id_)
        return REPORT, outcomes

    def _again(self) -> Sent:
        if not self.told.outcomes:
            return self._report()
        known = sorted(self.told.outcomes)
        return REPORT, [self.told.outcomes_sent[self._random.choice(known)]]

    def _recent(self) -> Body:
        return self._random.choice(self._decisions[-20:])


def _request(id_: str, user: str, weeks: int) -> Body:
    context = {"weeks": weeks}
    return {"surface": "home", "user_id": user, "request_id": id_, "context": context}


def together(clients: list[Client]) -> Told:
    """What several clients sent and were told."""
    whole = Told()
    for client in clients:
        told = client.told
        whole.requests |= told.requests
        for id_, answers in told.answers.items():
            whole.answers[id_] += answers
        whole.exposures_sent |= told.exposures_sent
        whole.exposures |= told.exposures
        whole.outcomes_sent |= told.outcomes_sent
        whole.outcomes |= told.outcomes
        whole.refusals += told.refusals
    return whole
