"""An engine driven in any order, compared with a model of what it has acknowledged."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from engine.answer import Answer
from engine.errors import ConflictError, NotFoundError, StoreError
from engine.ids import uuid7
from engine.learner import LearnReply, LearnRequest, _reply
from engine.learning import learn
from engine.log import Stored
from engine.models import newest_sound
from engine.replay import replay
from engine.request import DecideRequest
from engine.revisions import Revisions
from engine.service import Engine, OutcomeRequest
from engine.store import read as ask
from engine.workspace import load_workspace
from tests.engine.build import HOUR, SECOND
from tests.engine.test_service import Clock, Journal, Unsteady

T = TypeVar("T")

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer}
    metrics: {watch: {window: 1h, lateness: 10m}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}
        rules:
          - {id: r, kind: eligibility, actions: [B], when: weeks >= 2, reason: too new}
      badge:
        default: none
        policy: s
        actions: {none: {value: 0}, gold: {value: 1}}
policies:
  p: {kind: lin_ucb, floor: 0.3}
  s: {kind: thompson_gaussian, draw: sticky, period: 2h}
holdouts: {all: {share: 0.1}}
layers:
  l:
    test: {range: [0, 0.5], variants: {a: {slots: {home.layout: A}}, c: {slots: {home.layout: C}}}}
"""
VERSIONS = (
    WORLD,
    WORLD.replace("value: 3", "value: 4"),
    WORLD.replace("floor: 0.3", "floor: 0.5"),
    WORLD.replace("window: 1h", "window: 2h"),
)
BROKEN = WORLD.replace("lin_ucb", "lin_ubc")


class LearnerHere:
    """The learner's child process, as a thread of this one: to start one takes a second."""

    def __init__(self, store: Unsteady) -> None:
        self._store = store
        self._revisions = Revisions(store)

    async def learn(self, request: LearnRequest) -> LearnReply:
        return await asyncio.to_thread(_reply, self._store, self._revisions, request)

    async def close(self) -> None:
        """Nothing is to be ended."""


class AnyOrder(RuleBasedStateMachine):
    """What was acknowledged is stored once and stays as it was said, whatever comes between."""

    decisions: Bundle[str] = Bundle("decisions")
    outcomes: Bundle[str] = Bundle("outcomes")
    unstored: Bundle[str] = Bundle("unstored")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.runner = asyncio.Runner()
        self.clock = Clock(step=1)
        self.number = 0
        self.asked: dict[str, DecideRequest] = {}
        self.answers: dict[str, Answer] = {}
        self.exposed: set[tuple[str, str]] = set()
        self.sent: dict[str, OutcomeRequest] = {}
        self.revision = ""

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` returns, awaited on the machine's loop."""

        async def awaited() -> T:
            return await call()

        return self.runner.run(awaited())

    def open(self) -> None:
        """Open the database and an engine on it."""
        self.store = Unsteady(f"sqlite:///{self.folder}/log.db")

        async def opened() -> Engine:
            workspace = load_workspace(self.folder)
            return Engine(
                self.store,
                workspace,
                Journal(),
                folder=self.folder,
                clock=self.clock,
                new_id=lambda now: uuid7(now, self._next()),
            )

        self.engine = self.run(opened)
        self.engine._learner = LearnerHere(self.store)  # type: ignore[assignment]  # does as the process does
        self.revision = self.engine.status().revision

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _edit(self, text: str) -> None:
        (self.folder / "all.yaml").write_text(text, encoding="utf-8")

    @initialize()
    def begin(self) -> None:
        self._edit(WORLD)
        self.open()

    def teardown(self) -> None:
        try:
            self._as_acknowledged()
            self._replays()
            self._refits()
        finally:
            self.run(self.engine.close)
            self.runner.close()
            shutil.rmtree(self.folder)

    # Deciding

    def _request(self, user: int, weeks: int | None) -> DecideRequest:
        context = {} if weeks is None else {"weeks": weeks}
        id_ = f"r{self._next()}"
        return DecideRequest(surface="home", user_id=str(user), context=context, request_id=id_)

    users = st.integers(0, 4)
    weeks = st.one_of(st.none(), st.integers(0, 3))

    @rule(target=decisions, user=users, weeks=weeks)
    def decide(self, user: int, weeks: int | None) -> str:
        request = self._request(user, weeks)
        return self._decided(request, self.run(lambda: self.engine.decide(request)))

    def _decided(self, request: DecideRequest, answer: Answer) -> str:
        assert answer.logged
        assert answer.fallback is None
        assert request.request_id
        assert answer.revision == self.revision
        if request.context.get("weeks", 0) not in {2, 3}:
            assert answer.config["layout"] != 2
        self.asked[request.request_id] = request
        self.answers[request.request_id] = answer
        return request.request_id

    @rule(user=users, weeks=weeks)
    def peek(self, user: int, weeks: int | None) -> None:
        request = replace(self._request(user, weeks), request_id=None, peek=True)
        answer = self.run(lambda: self.engine.decide(request))
        assert (answer.logged, answer.decision_id) == (False, None)

    @rule(id_=decisions)
    def repeat(self, id_: str) -> None:
        assert self.run(lambda: self.engine.decide(self.asked[id_])) == self.answers[id_]
        other = replace(self.asked[id_], user_id="other")
        with pytest.raises(ConflictError):
            self.run(lambda: self.engine.decide(other))

    @rule(target=unstored, user=users, weeks=weeks)
    def decide_while_the_log_fails(self, user: int, weeks: int | None) -> str:
        request = self._request(user, weeks)
        self.store.fault = StoreError("the disk is full")
        answer = self.run(lambda: self.engine.decide(request))
        outcome = OutcomeRequest(f"lost{self._next()}", "watch", 1.0, user_id="1")
        with pytest.raises(StoreError):
            self.run(lambda: self.engine.record_outcomes([outcome], listed=False))
        assert not self.engine.status().storing
        self.store.fault = None
        assert (answer.logged, answer.config) == (False, {"layout": 1, "badge": 0})
        assert request.request_id
        self.asked[request.request_id] = request
        return request.request_id

    @rule(target=decisions, id_=consumes(unstored))
    def decide_again(self, id_: str) -> str:
        request = self.asked[id_]
        return self._decided(request, self.run(lambda: self.engine.decide(request)))

    # What follows

    @rule(id_=decisions, slot=st.sampled_from([None, "layout", "badge"]))
    def expose(self, id_: str, slot: str | None) -> None:
        decision_id = self.answers[id_].decision_id or ""
        shown = {(decision_id, s) for s in ([slot] if slot else ["layout", "badge"])}
        slots = (slot,) if slot else None
        stored = self.run(lambda: self.engine.expose(decision_id, slots, None))
        new = shown - self.exposed
        assert stored == Stored(len(new), len(shown) - len(new))
        self.exposed |= new
        with pytest.raises(NotFoundError):
            self.run(lambda: self.engine.expose("unknown", None, None))

    @rule(
        target=outcomes,
        id_=decisions,
        of_unit=st.booleans(),
        value=st.integers(0, 3),
        ago=st.sampled_from([None, 0, HOUR]),
    )
    def report(self, id_: str, value: int, ago: int | None, *, of_unit: bool) -> str:
        answer = self.answers[id_]
        sent = OutcomeRequest(
            outcome_id=f"o{self._next()}",
            metric="watch",
            value=float(value),
            decision_id=None if of_unit else answer.decision_id,
            user_id=answer.unit.removeprefix("u:") if of_unit else None,
            occurred_at=None if ago is None else self.clock.now - ago,
        )
        return self._reported(sent)

    def _reported(self, sent: OutcomeRequest) -> str:
        stored = self.run(lambda: self.engine.record_outcomes([sent], listed=False))
        assert (stored.accepted, stored.duplicates) == (1, 0)
        self.sent[sent.outcome_id] = sent
        return sent.outcome_id

    @rule(target=outcomes, id_=outcomes, value=st.integers(0, 3))
    def correct(self, id_: str, value: int) -> str:
        new = f"o{self._next()}"
        return self._reported(
            replace(self.sent[id_], outcome_id=new, value=float(value), corrects=id_)
        )

    @rule(id_=outcomes)
    def report_again(self, id_: str) -> None:
        sent = self.sent[id_]
        stored = self.run(lambda: self.engine.record_outcomes([sent], listed=False))
        assert (stored.accepted, stored.duplicates) == (0, 1)
        other = replace(sent, value=sent.value + 1)
        with pytest.raises(ConflictError):
            self.run(lambda: self.engine.record_outcomes([other], listed=False))

    @rule(after=st.sampled_from([SECOND, HOUR // 2, HOUR, 3 * HOUR]))
    def later(self, after: int) -> None:
        self.clock.now += after

    # Learning and changing what serves

    @rule()
    def learn(self) -> None:
        self.run(self.engine.learn_once)

    @rule(target=decisions, user=users, weeks=weeks)
    def learn_beside_a_commit(self, user: int, weeks: int | None) -> str:
        request = self._request(user, weeks)

        async def beside() -> Answer:
            with self.store.slow_write() as gate:
                began = self.clock.now
                asking = asyncio.create_task(self.engine.decide(request))
                await gate.reached()
                self.clock.now += 4 * HOUR
                assert self.engine._committer.watermark() <= began + self.clock.step * 3
                learning = asyncio.create_task(self.engine.learn_once())
                await asyncio.sleep(0)
            answer = await asking
            await learning
            return answer

        return self._decided(request, self.run(beside))

    @rule(text=st.sampled_from([*VERSIONS, BROKEN]))
    def reload(self, text: str) -> None:
        self._edit(text)
        assert self.run(self.engine.reload) == (text != BROKEN)
        if text == BROKEN:
            assert self.engine.status().revision == self.revision
            self._edit(WORLD)
            assert self.run(self.engine.reload)
        self.revision = self.engine.status().revision

    @rule()
    def close_and_open_again(self) -> None:
        self.run(self.engine.close)
        self.open()

    # What holds

    @invariant()
    def stored_once(self) -> None:
        stored = self.store.read(ask.counts)
        assert stored["decisions"] == len(self.answers)
        assert stored["exposures"] == len(self.exposed)
        assert stored["outcomes"] == len(self.sent)
        assert stored["voids"] == 0

    @invariant()
    def all_is_durable(self) -> None:
        before = self.clock.now
        assert self.engine._committer.watermark() >= before - 1

    def _as_acknowledged(self) -> None:
        for id_, answer in self.answers.items():
            assert self.run(lambda id_=id_: self.engine.decide(self.asked[id_])) == answer  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for row in self.store.read(lambda c: ask.outcomes_after(c, 0, -1)):
            sent = self.sent[row.outcome_id]
            assert (row.value, row.corrects) == (sent.value, sent.corrects)

    def _replays(self) -> None:
        revisions = Revisions(self.store)
        for answer in self.answers.values():
            assert replay(self.store, revisions, answer.decision_id or "").identical

    def _refits(self) -> None:
        """Each learner's newest snapshot is what the log gives when read from its first row."""
        self.run(self.engine.learn_once)
        workspace = self.engine.workspace
        for learner in workspace.learners.values():
            warned: list[str] = []
            newest, _ = newest_sound(self.store, learner, warned.append) or (None, None)
            assert newest
            refit = learn(
                self.store,
                workspace,
                learner,
                until_us=newest.position.closes_at + workspace.surfaces["home"].reward_horizon_us,
                now_us=self.clock.now,
                revisions=Revisions(self.store),
                refit=True,
                warn=warned.append,
            )
            assert warned == []
            if refit:
                again = refit.snapshot
                assert (again.digest, again.passed) == (newest.digest, newest.passed)
            else:
                assert newest.passed == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
