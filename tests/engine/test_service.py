"""The engine at work: deadlines, a log that fails or is slow, and changes of what serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from engine.answer import Answer
from engine.committer import Committer
from engine.decide import LEARNED
from engine.errors import ConflictError, RequestError, StoreError
from engine.ids import rfc3339, uuid7
from engine.log import (
    DecisionEntry,
    Entry,
    Result,
    RevisionEntry,
    SnapshotEntry,
    VoidEntry,
    decision_entry,
)
from engine.record import decode_record
from engine.request import DecideRequest
from engine.service import Engine, OutcomeRequest
from engine.store import SnapshotRow, Store, StoredDecision
from engine.store import read as ask
from engine.workspace import load_workspace
from tests.engine.build import DAY, NOW, SECOND, Desk, decided, serving_of, workspace_of

T = TypeVar("T")

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    triggers: [visit]
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}}
policies:
  p: {kind: weighted, weights: {B: 1}}
"""
STICKY = WORLD.replace("{B: 1}", "{B: 1}, draw: sticky, period: 7d")
LEARNING = WORLD.replace("weighted, weights: {B: 1}", "thompson_gaussian")
LEARNER = "p:home.layout"
MINUTE_MS = 60_000
LIMIT_S = 20
"""How long a test waits for what must come, before it fails."""


# Time, the log and the journal, as tests have them -----------------------------------------------


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time can be skipped, so that a deadline passes when a test says so."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped

    def skip(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.skipped += seconds


@dataclass
class Clock:
    """A clock that goes on by ``step`` microseconds whenever it is read."""

    now: int = NOW
    step: int = 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@dataclass
class Gate:
    """Where a thread waits until it is let through."""

    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.entered.set()
        self.opened.wait(LIMIT_S)

    async def reached(self) -> None:
        """Return once a thread waits here."""
        assert await asyncio.to_thread(self.entered.wait, LIMIT_S)


class Unsteady(Store):
    """A store that can be told to fail on entries of some kinds, or to be slow."""

    def __init__(self, url: str) -> None:
        super().__init__(url, writer="tests")
        # Time that a test skips is none in which the database did not answer.
        self.longest_s = None
        self.fault: Exception | None = None
        self.faulty: type | tuple[type, ...] = object
        self.batches: list[list[Entry]] = []
        self.refused = 0
        self.voided = threading.Event()
        self._writes: Gate | None = None
        self._reads: Gate | None = None
        self._is_slow: Callable[[object], bool] = lambda _: True

    def write(self, entries: Sequence[Entry], now_us: int, *, live: bool = False) -> list[Result]:
        self.batches.append(list(entries))
        gate, self._writes = self._writes, None
        if gate:
            gate.wait()
        if self.fault and any(isinstance(entry, self.faulty) for entry in entries):
            self.refused += 1
            raise self.fault
        results = super().write(entries, now_us, live=live)
        if any(isinstance(entry, VoidEntry) for entry in entries):
            self.voided.set()
        return results

    def read(self, query: Callable[[Connection], T]) -> T:
        found = super().read(query)
        if self._reads and self._is_slow(found):
            gate, self._reads = self._reads, None
            gate.wait()
        return found

    @contextmanager
    def slow_write(self) -> Iterator[Gate]:
        """The next write waits at a gate, which opens at the end at the latest."""
        self._writes = gate = Gate()
        try:
            yield gate
        finally:
            gate.opened.set()

    @contextmanager
    def slow_read(self, found: Callable[[object], bool] = lambda _: True) -> Iterator[Gate]:
        """The next read that finds such a thing waits with it at a gate, as a write does."""
        self._is_slow = found
        self._reads = gate = Gate()
        try:
            yield gate
        finally:
            gate.opened.set()

    def decisions(self) -> int:
        """How many decisions are stored."""
        return self.read(ask.counts)["decisions"]

    def stored(self, request_id: str) -> StoredDecision:
        """The decision stored under a request id."""
        known = self.read(lambda c: ask.by_request(c, request_id))
        assert known is not None
        record = decode_record(known[0])
        found = self.read(lambda c: ask.decision(c, record.decision_id))
        assert found is not None
        return found


class Journal:
    """What was said, by event."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    warning = info


@pytest.fixture
def store(url: str) -> Iterator[Unsteady]:
    """An empty database that does as it is told."""
    opened = Unsteady(url)
    yield opened
    opened.close()


Scene = Callable[[Engine, Loop], Awaitable[None]]


def _play(
    store: Store,
    scene: Scene,
    *,
    text: str = WORLD,
    folder: Path | None = None,
    clock: Clock | None = None,
) -> None:
    """A scene with an engine, on a loop whose time can be skipped."""

    async def played() -> None:
        workspace = load_workspace(folder) if folder else workspace_of(text)
        engine = Engine(store, workspace, Journal(), folder=folder, clock=clock or Clock())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        try:
            await scene(engine, loop)
        finally:
            await engine.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(played())


def _asked(request_id: str | None = None, **more: Any) -> DecideRequest:
    return DecideRequest(surface="home", user_id="1", request_id=request_id, **more)


def _is_default(answer: Answer, why: str) -> bool:
    (choice,) = answer.choices
    return (answer.decision_id, answer.logged, answer.fallback, answer.config, choice.reason) == (
        None,
        False,
        why,
        {"layout": 1},
        "fallback",
    )


async def _too_late(engine: Engine, store: Unsteady, loop: Loop, request_id: str) -> Answer:
    """The answer to a request whose deadline passes while its commit is under way."""
    with store.slow_write() as gate:
        asking = asyncio.create_task(engine.decide(_asked(request_id, deadline_ms=MINUTE_MS)))
        await gate.reached()
        loop.skip(60)
        return await asking


# Deadlines ---------------------------------------------------------------------------------------


def test_a_deadline_missed_during_the_commit_answers_the_defaults_and_voids_the_decision(
    store: Unsteady,
) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        answer = await _too_late(engine, store, loop, "r")
        assert _is_default(answer, "deadline")
        served = await engine.decide(_asked())
        assert served.config == {"layout": 2}
        assert store.stored("r").void == "answered before it was durable"
        assert await engine.decide(_asked("r")) == answer
        assert await engine.decide(_asked("r", deadline_ms=MINUTE_MS)) == answer
        assert store.decisions() == 2

    _play(store, scene)


def test_a_void_is_stored_though_the_first_attempt_fails(store: Unsteady) -> None:
    """Until it is, the request keeps its answer, and what it was stamped with is not durable."""

    async def scene(engine: Engine, loop: Loop) -> None:
        store.fault, store.faulty = StoreError("the disk is full"), VoidEntry
        answer = await _too_late(engine, store, loop, "r")
        await engine.decide(_asked())
        assert store.refused > 0
        assert store.stored("r").void is None
        assert await engine.decide(_asked("r")) == answer
        store.fault = None
        loop.skip(1)
        assert await asyncio.to_thread(store.voided.wait, LIMIT_S)
        assert store.stored("r").void == "answered before it was durable"
        assert await engine.decide(_asked("r")) == answer

    _play(store, scene)


def test_a_request_repeated_before_the_first_is_void_is_answered_alike(store: Unsteady) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        with store.slow_write() as gate:
            first = asyncio.create_task(engine.decide(_asked("r", deadline_ms=MINUTE_MS)))
            await gate.reached()
            second = asyncio.create_task(engine.decide(_asked("r")))
            await asyncio.sleep(0)
            loop.skip(60)
            answer = await first
        assert _is_default(answer, "deadline")
        assert await second == answer

    _play(store, scene)


def test_a_void_that_could_not_be_stored_is_tried_once_more_at_the_close(
    store: Unsteady, url: str
) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        store.fault, store.faulty = StoreError("the disk is full"), VoidEntry
        await _too_late(engine, store, loop, "r")
        await engine.decide(_asked())
        assert store.refused > 0
        store.fault = None

    _play(store, scene)
    reader = Store(url)
    assert reader.read(ask.counts)["voids"] == 1
    reader.close()


def test_what_is_persisted_holds_the_watermark_until_it_is_stored(store: Unsteady) -> None:
    void = VoidEntry(uuid7(NOW, 1), "late")

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        committer = Committer(store, Clock())
        store.fault, store.faulty = StoreError("the disk is full"), VoidEntry
        committer.persist(void, NOW - 70)
        assert committer.watermark() == NOW - 71
        serving = serving_of(workspace_of(WORLD))
        for attempt in (1, 2):
            # What is written after the attempt shows that it came to nothing.
            await asyncio.sleep(0)
            loop.skip(1)
            entry = decision_entry(decided(serving, "home", number=attempt))
            await committer.write(entry, NOW - 10)
            assert committer.watermark() == NOW - 71
        assert store.refused > 0
        assert committer.persists(void)
        store.fault = None
        loop.skip(1)
        assert await asyncio.to_thread(store.voided.wait, LIMIT_S)
        await committer.write(decision_entry(decided(serving, "home", number=3)), NOW - 10)
        assert committer.watermark() == NOW - 1
        assert not committer.persists(void)
        await committer.close()
        assert [tuple(row) for row in store.read(ask.void_rows)] == [
            (void.decision_id, "late", NOW)
        ]

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scene())


def test_a_commit_that_begins_after_the_deadline_stores_the_void_with_the_decision(
    store: Unsteady,
) -> None:
    clock = Clock()

    async def scene(engine: Engine, loop: Loop) -> None:
        before, clock.step = len(store.batches), 60 * SECOND + 1
        answer = await engine.decide(_asked("r", deadline_ms=MINUTE_MS))
        assert _is_default(answer, "deadline")
        ((entry,),) = store.batches[before:]
        assert isinstance(entry, DecisionEntry)
        assert store.stored("r").void == "committed after its deadline"
        assert await engine.decide(_asked("r")) == answer
        clock.step = 60 * SECOND
        assert (await engine.decide(_asked("s", deadline_ms=MINUTE_MS))).logged

    _play(store, scene, clock=clock)


def test_a_deadline_missed_before_the_commit_leaves_nothing_in_the_log(store: Unsteady) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        with store.slow_write() as gate:
            first = asyncio.create_task(engine.decide(_asked()))
            await gate.reached()
            waits = asyncio.create_task(engine.decide(_asked("r", deadline_ms=MINUTE_MS)))
            await asyncio.sleep(0)
            assert engine.status().waiting == 1
            loop.skip(60)
            assert _is_default(await waits, "deadline")
        assert (await first).logged
        assert store.decisions() == 1
        assert store.read(ask.counts)["voids"] == 0
        assert (await engine.decide(_asked("r"))).config == {"layout": 2}

    _play(store, scene)


def test_a_deadline_is_kept_where_sticky_draws_are_slow_to_read(store: Unsteady) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        with store.slow_read() as gate:
            asking = asyncio.create_task(engine.decide(_asked(deadline_ms=MINUTE_MS)))
            await gate.reached()
            loop.skip(60)
            async with asyncio.timeout(LIMIT_S / 2):
                answer = await asking
            assert _is_default(answer, "deadline")
        assert store.decisions() == 0
        assert (await engine.decide(_asked(deadline_ms=MINUTE_MS))).config == {"layout": 2}

    _play(store, scene, text=STICKY)


# A log that fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [StoreError("the disk is full"), RuntimeError("never seen")])
def test_the_committer_survives_whatever_a_write_raises(store: Unsteady, fault: Exception) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        store.fault = fault
        async with asyncio.timeout(LIMIT_S):
            answer = await engine.decide(_asked("r"))
        assert _is_default(answer, "the log is unavailable")
        sent = OutcomeRequest("o", "watch", 1.0, user_id="1")
        with pytest.raises(StoreError, match=str(fault)):
            await engine.record_outcomes([sent], listed=False)
        assert not engine.status().storing
        assert not (await engine.probe()).storing
        store.fault = None
        assert (await engine.probe()).storing
        assert (await engine.record_outcomes([sent], listed=False)).accepted == 1
        assert (await engine.decide(_asked("r"))).config == {"layout": 2}
        assert engine.status().storing

    _play(store, scene)


def test_an_unforeseen_fault_of_one_entry_does_not_refuse_its_neighbours(store: Unsteady) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        store.fault, store.faulty = RuntimeError("never seen"), DecisionEntry
        sent = OutcomeRequest("o", "watch", 1.0, user_id="1")
        with store.slow_write() as gate:
            first = asyncio.create_task(engine.decide(_asked()))
            await gate.reached()
            both = asyncio.gather(
                engine.decide(_asked()), engine.record_outcomes([sent], listed=False)
            )
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            assert _is_default(await first, "the log is unavailable")
            answer, stored = await both
        assert _is_default(answer, "the log is unavailable")
        assert stored.accepted == 1

    _play(store, scene)


def test_a_log_ahead_of_the_clock_is_refused_with_the_repair(store: Unsteady) -> None:
    """Else what is stamped now would stand before what was stamped long ago."""
    Desk(store, workspace_of(WORLD)).decide(1, NOW)

    async def began(clock: Clock) -> Answer:
        engine = Engine(store, workspace_of(WORLD), Journal(), clock=clock)
        return await engine.decide(_asked())

    with pytest.raises(StoreError, match="ahead of this machine's clock; mend the clock") as caught:
        asyncio.run(began(Clock(NOW - 60 * SECOND - 1)))
    assert rfc3339(NOW) in str(caught.value)
    # A little behind, the engine's time stands still until the machine's has caught up.
    assert asyncio.run(began(Clock(NOW - 60 * SECOND))).decided_at == rfc3339(NOW)


# Changing what serves ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace folder that a test edits."""
    return _edit(tmp_path / "workspace", WORLD)


def _edit(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "all.yaml").write_text(text, encoding="utf-8")
    return folder


def _revision(text: str) -> str:
    return workspace_of(text).revision


async def _settled(task: asyncio.Task[Any]) -> None:
    """Give a task that may wait for a lock the time to end if nothing holds it."""
    await asyncio.wait({task}, timeout=0.3)


def test_of_two_reloads_at_once_the_newest_revision_serves(store: Unsteady, folder: Path) -> None:
    older, newest = WORLD.replace("{B: 1}", "{A: 1}"), LEARNING

    async def scene(engine: Engine, loop: Loop) -> None:
        _edit(folder, older)
        with store.slow_read() as gate:
            first = asyncio.create_task(engine.reload())
            await gate.reached()
            _edit(folder, newest)
            second = asyncio.create_task(engine.reload())
            await _settled(second)
        assert await first
        assert await second
        assert engine.status().revision == _revision(newest)
        assert store.read(ask.latest_revision) == _revision(newest)

    _play(store, scene, folder=folder)


def _is_lineage(found: object) -> bool:
    return isinstance(found, list) and any(isinstance(row, SnapshotRow) for row in found)


def test_a_reload_beside_learning_does_not_lose_the_newer_snapshot(
    store: Unsteady, folder: Path
) -> None:
    """The reload has read which snapshot is the newest when learning has another."""
    clock = Clock()

    async def scene(engine: Engine, loop: Loop) -> None:
        for _ in range(2):
            await engine.decide(_asked())
            clock.now += DAY
        assert await engine.learn_once() == 1
        await engine.decide(_asked())
        clock.now += DAY
        earlier = engine.status().snapshots[LEARNER]
        _edit(folder, LEARNING.replace("value: 2", "value: 3"))
        with store.slow_read(_is_lineage) as gate:
            reading = asyncio.create_task(engine.reload())
            await gate.reached()
            learning = asyncio.create_task(engine.learn_once())
            await _settled(learning)
        assert await reading
        assert await learning == 1
        spec = engine.workspace.learners[LEARNER].spec
        newest = store.read(lambda c: ask.lineage(c, LEARNER, spec))[0]
        assert newest.digest != earlier
        assert engine.status().snapshots[LEARNER] == newest.digest
        assert (await engine.decide(_asked())).choices[0].snapshot == newest.digest

    _play(store, scene, folder=_edit(folder, LEARNING), clock=clock)


def test_a_policy_that_waited_for_evidence_chooses_as_soon_as_it_has_learned_enough(
    store: Unsteady, folder: Path
) -> None:
    """Also in the server that learned, and as a replay of its decisions finds it."""
    clock = Clock()

    async def scene(engine: Engine, loop: Loop) -> None:
        waiting = [await engine.decide(_asked()) for _ in range(2)]
        clock.now += DAY
        assert await engine.learn_once() == 1
        after = await engine.decide(_asked())
        for answer, learned in ((waiting[0], 0), (after, 2)):
            assert answer.decision_id is not None
            stored = store.read(partial(ask.decision, decision_id=answer.decision_id))
            assert stored is not None
            assert decode_record(stored.data).caps == {f"{LEARNED}{LEARNER}": learned}
            assert (await engine.replay(answer.decision_id)).identical

    waits = LEARNING.replace("kind: thompson", "abstain: 2, floor: 0.1, kind: thompson")
    _play(store, scene, folder=_edit(folder, waits), clock=clock)


def test_a_revision_whose_models_cannot_be_made_is_not_activated(
    store: Unsteady, folder: Path
) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        before = engine.status()
        _edit(folder, LEARNING)
        store.fault, store.faulty = StoreError("the disk is full"), SnapshotEntry
        assert not await engine.reload()
        refused = engine.status()
        assert (refused.revision, refused.snapshots) == (before.revision, before.snapshots)
        assert "the disk is full" in (refused.reload_fault or "")
        assert store.read(ask.latest_revision) == before.revision
        store.fault = None
        assert await engine.reload()
        assert engine.status().revision == _revision(LEARNING)
        assert engine.status().reload_fault is None
        assert store.read(ask.latest_revision) == _revision(LEARNING)

    _play(store, scene, folder=folder)


def test_a_revision_that_cannot_be_activated_does_not_serve(store: Unsteady, folder: Path) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        before = engine.status().revision
        _edit(folder, LEARNING)
        store.fault, store.faulty = StoreError("the disk is full"), RevisionEntry
        assert not await engine.reload()
        assert engine.status().revision == before

    _play(store, scene, folder=folder)


def test_a_repeated_request_is_answered_alike_though_a_reload_would_refuse_it(
    store: Unsteady, folder: Path
) -> None:
    async def scene(engine: Engine, loop: Loop) -> None:
        first = await engine.decide(_asked("r", trigger="visit"))
        late = await _too_late(engine, store, loop, "late")
        _edit(folder, WORLD.replace("[visit]", "[click]").replace("value: 2", "value: 3"))
        assert await engine.reload()
        assert await engine.decide(_asked("r", trigger="visit")) == first
        assert first.config == {"layout": 2}
        assert await engine.decide(_asked("late")) == late
        with pytest.raises(ConflictError, match="request_id"):
            await engine.decide(_asked("r", trigger="never"))
        for new in (_asked("s", trigger="visit"), _asked(trigger="visit")):
            with pytest.raises(RequestError, match="trigger"):
                await engine.decide(new)
        with pytest.raises(RequestError, match="trigger"):
            await engine.decide(_asked("r", trigger="visit", peek=True))

    _play(store, scene, folder=folder)
