"""Group commit: batches without a timer, neighbours that stand, and the watermark."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from engine.committer import MOST_IN_BATCH, MOST_WAITING, Committer
from engine.errors import StoreError, StoreLostError
from engine.ids import uuid7
from engine.log import Entry, OutcomesEntry, Refused, Result, Stored, VoidEntry, decision_entry
from engine.store import Store
from engine.store import read as ask
from tests.engine.build import NOW, decided, outcome, serving_of, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    slots: {layout: {default: A, actions: {A: {value: 1}, B: {value: 2}}}}
"""


class Gate:
    """A store whose writes wait until they are let through, and which notes each batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = threading.Event()
        self.batches: list[list[Entry]] = []
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def write(self, entries: Sequence[Entry], now_us: int, *, live: bool) -> list[Result]:
        self.batches.append(list(entries))
        self._loop.call_soon_threadsafe(self.entered.set)
        self._open.wait()
        return self._store.write(entries, now_us, live=live)

    def checkpoint(self) -> None:
        self._store.checkpoint()

    def open(self) -> None:
        """Let this and all later writes through."""
        self._open.set()


Scene = Callable[[Committer, Gate], Awaitable[None]]


@asynccontextmanager
async def _committing(store: Store) -> AsyncIterator[tuple[Committer, Gate]]:
    gate = Gate(store)
    committer = Committer(gate, lambda: NOW)  # type: ignore[arg-type]  # has what the committer asks of a store
    try:
        yield committer, gate
    finally:
        gate.open()
        await committer.close()


def _outcome(number: int) -> OutcomesEntry:
    return OutcomesEntry((outcome(f"o{number}", f"u:{number}"),))


def _stored(store: Store) -> int:
    return store.read(ask.counts)["outcomes"]


def _play(store: Store, scene: Scene) -> None:
    async def played() -> None:
        async with _committing(store) as (committer, gate):
            await scene(committer, gate)

    asyncio.run(played())


def test_an_entry_is_durable_when_its_result_is_there(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        gate.open()
        assert await committer.write(_outcome(1), NOW) == Stored(1, 0, 0)
        assert _stored(store) == 1

    _play(store, scene)


def test_what_queued_during_a_commit_is_the_next_batch(store: Store) -> None:
    """An idle committer waits for nobody: the first entry goes alone, at once."""

    async def scene(committer: Committer, gate: Gate) -> None:
        first = committer.submit(_outcome(0), NOW)
        await gate.entered.wait()
        rest = [committer.submit(_outcome(n), NOW) for n in range(1, 6)]
        assert committer.waiting == 5
        gate.open()
        results = await asyncio.gather(first.done, *(ticket.done for ticket in rest))
        assert results == [Stored(1, 0, 0)] * 6
        assert [len(batch) for batch in gate.batches] == [1, 5]
        assert gate.batches[1] == [ticket.entry for ticket in rest]

    _play(store, scene)


def test_a_batch_has_a_bound(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        tickets = [committer.submit(_outcome(n), NOW) for n in range(MOST_IN_BATCH + 3)]
        gate.open()
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert [len(batch) for batch in gate.batches] == [MOST_IN_BATCH, 3]

    _play(store, scene)


def test_batches_are_observed_with_their_sizes(store: Store) -> None:
    sizes: list[int] = []

    async def played() -> None:
        committer = Committer(store, lambda: NOW, lambda size, seconds: sizes.append(size))
        await asyncio.gather(*(committer.write(_outcome(n), NOW) for n in range(4)))
        await committer.close()

    asyncio.run(played())
    assert sizes == [4]


def test_a_refused_entry_does_not_touch_its_neighbours(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        other = OutcomesEntry((outcome("o1", "u:1", 9.0),))
        tickets = [committer.submit(e, NOW) for e in (_outcome(1), other, _outcome(2))]
        gate.open()
        results = await asyncio.gather(*(ticket.done for ticket in tickets))
        assert [type(result) for result in results] == [Stored, Refused, Stored]

    _play(store, scene)


def test_an_entry_that_fails_does_not_refuse_its_neighbours(store: Store) -> None:
    """The database refuses the whole batch; each entry is then tried alone."""
    serving = serving_of(workspace_of(WORLD))
    twice = decision_entry(decided(serving, "home", 1))
    store.write([twice], NOW)
    unfit = OutcomesEntry((replace(outcome("x", "u:1"), occurred_at=2**63),))

    async def scene(committer: Committer, gate: Gate) -> None:
        entries = (_outcome(1), twice, _outcome(2), unfit, _outcome(3))
        tickets = [committer.submit(entry, NOW) for entry in entries]
        gate.open()
        results = await asyncio.gather(*(t.done for t in tickets), return_exceptions=True)
        assert [type(r) for r in results] == [Stored, StoreError, Stored, StoreError, Stored]
        assert committer.failure is None
        assert await committer.write(_outcome(4), NOW) == Stored(1, 0, 0)

    _play(store, scene)
    assert _stored(store) == 4


def test_a_failure_is_remembered_until_a_commit_succeeds(url: str) -> None:
    store = Store(url, writer="tests")
    reader = Store(url)

    async def played() -> None:
        committer = Committer(reader, lambda: NOW)
        with pytest.raises(StoreError, match="open for reading only"):
            await committer.write(_outcome(1), NOW)
        assert committer.failure is not None
        await committer.close()

    asyncio.run(played())
    reader.close()
    store.close()


def test_a_queued_entry_can_be_taken_back_and_a_taken_one_cannot(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        taken = committer.submit(_outcome(1), NOW)
        await gate.entered.wait()
        queued, kept = (committer.submit(_outcome(n), NOW) for n in (2, 3))
        assert committer.withdraw(queued)
        assert not committer.withdraw(queued)
        assert not committer.withdraw(taken)
        gate.open()
        await asyncio.gather(taken.done, kept.done)
        assert not committer.withdraw(kept)
        with pytest.raises(asyncio.CancelledError):
            await queued.done

    _play(store, scene)
    assert _stored(store) == 2


def test_a_caller_that_left_does_not_stop_the_rest(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        left = committer.submit(_outcome(1), NOW)
        stays = committer.submit(_outcome(2), NOW)
        left.done.cancel()
        gate.open()
        assert await stays.done == Stored(1, 0, 0)

    _play(store, scene)
    assert _stored(store) == 2


def test_the_watermark_stays_below_all_that_is_not_durable(store: Store) -> None:
    """And below now: what is stamped in this very microsecond may still come."""

    async def scene(committer: Committer, gate: Gate) -> None:
        assert committer.watermark() == NOW - 1
        committing = committer.submit(_outcome(1), NOW - 50)
        await gate.entered.wait()
        queued = committer.submit(_outcome(2), NOW - 70)
        assert committer.watermark() == NOW - 71
        committer.withdraw(queued)
        assert committer.watermark() == NOW - 51
        gate.open()
        await committing.done
        await committer.write(_outcome(3), NOW - 10)
        assert committer.watermark() == NOW - 1

    _play(store, scene)


def test_closing_commits_what_is_queued_and_then_refuses(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        tickets = [committer.submit(_outcome(n), NOW) for n in range(MOST_IN_BATCH * 2 + 1)]
        gate.open()
        await committer.close()
        assert all(ticket.done.result() == Stored(1, 0, 0) for ticket in tickets)
        with pytest.raises(StoreError, match="is stopping"):
            committer.submit(_outcome(0), NOW)

    _play(store, scene)
    assert _stored(store) == MOST_IN_BATCH * 2 + 1


def test_a_full_queue_refuses_and_queues_nothing(store: Store) -> None:
    async def scene(committer: Committer, gate: Gate) -> None:
        first = committer.submit(_outcome(0), NOW)
        await gate.entered.wait()
        void = VoidEntry(uuid7(NOW, 1), "late")
        for _ in range(MOST_WAITING):
            committer.submit(void, NOW)
        with pytest.raises(StoreError, match="20,000 entries wait"):
            committer.submit(void, NOW)
        assert committer.waiting == MOST_WAITING
        gate.open()
        assert await first.done == Stored(1, 0, 0)

    _play(store, scene)
    assert store.read(ask.counts)["voids"] == 1


# A database that cannot be reached ---------------------------------------------------------------


class Gone:
    """A store whose database is out of reach until it is brought back."""

    def __init__(self, *, unsure: bool = False) -> None:
        self.writes = 0
        self.back = threading.Event()
        self._unsure = unsure

    def write(self, entries: Sequence[Entry], now_us: int, *, live: bool) -> list[Result]:
        self.writes += 1
        self.ping()
        return [Stored()] * len(entries)

    def ping(self) -> None:
        if not self.back.is_set():
            raise StoreLostError("gone", unsure=self._unsure)


async def _until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not found():
            await asyncio.to_thread(time.sleep, 0.01)


def test_while_the_database_is_gone_nobody_waits_for_it_and_then_it_goes_on_by_itself() -> None:
    async def played() -> None:
        gone = Gone(unsure=True)
        committer = Committer(gone, lambda: NOW)  # type: ignore[arg-type]  # has what the committer asks of a store
        tickets = [committer.submit(_outcome(number), NOW) for number in range(3)]
        failed = await asyncio.gather(*(t.done for t in tickets), return_exceptions=True)
        assert [getattr(error, "unsure", None) for error in failed] == [True] * 3
        assert gone.writes == 1
        with pytest.raises(StoreLostError) as caught:
            committer.submit(_outcome(9), NOW)
        assert not caught.value.unsure
        assert str(committer.failure) == "gone"
        gone.back.set()
        await _until(lambda: committer.lost is None)
        assert await committer.write(_outcome(1), NOW) == Stored()
        assert committer.failure is None
        await committer.close()

    asyncio.run(played())


def test_what_waits_when_the_database_is_found_gone_is_refused_at_once() -> None:
    async def played() -> None:
        gone = Gone()
        committer = Committer(gone, lambda: NOW)  # type: ignore[arg-type]  # has what the committer asks of a store
        tickets = [committer.submit(_outcome(n), NOW) for n in range(MOST_IN_BATCH + 5)]
        failed = await asyncio.gather(*(t.done for t in tickets), return_exceptions=True)
        assert {type(error) for error in failed} == {StoreLostError}
        assert gone.writes == 1
        await committer.close()

    asyncio.run(played())


class Silent(Gone):
    """A store whose database takes what is written and never answers, until it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts = 0
        self._cut = threading.Event()

    def ping(self) -> None:
        if not self.back.is_set():
            self._cut.wait(20)
            self._cut.clear()
            raise StoreLostError("cut", unsure=True)

    def cut(self) -> None:
        self.cuts += 1
        self._cut.set()


def test_a_database_that_does_not_answer_in_time_is_cut_and_lost() -> None:
    async def played() -> None:
        silent = Silent()
        committer = Committer(silent, lambda: NOW, longest_s=0.2)  # type: ignore[arg-type]  # has what the committer asks of a store
        with pytest.raises(StoreLostError, match="does not answer") as caught:
            await committer.write(_outcome(1), NOW)
        assert caught.value.unsure
        assert silent.cuts == 1
        silent.back.set()
        silent.cut()
        await _until(lambda: committer.lost is None)
        assert await committer.write(_outcome(1), NOW) == Stored()
        await committer.close()

    asyncio.run(played())


class GoneAmid(Gone):
    """A store that refuses a batch, and whose database goes while its entries are tried alone."""

    def write(self, entries: Sequence[Entry], now_us: int, *, live: bool) -> list[Result]:
        self.writes += 1
        if self.writes == 1:
            raise StoreError("one of them is unfit")
        return super().write(entries, now_us, live=live)


def test_when_the_database_goes_while_entries_are_tried_alone_the_rest_is_not_tried() -> None:
    async def played() -> None:
        gone = GoneAmid()
        committer = Committer(gone, lambda: NOW)  # type: ignore[arg-type]  # has what the committer asks of a store
        tickets = [committer.submit(_outcome(number), NOW) for number in range(20)]
        failed = await asyncio.gather(*(t.done for t in tickets), return_exceptions=True)
        assert {type(error) for error in failed} == {StoreLostError}
        # Once together, once alone.
        assert gone.writes == 3
        await committer.close()

    asyncio.run(played())


def test_a_loss_that_another_noticed_refuses_entries_until_the_database_answers() -> None:
    async def played() -> None:
        gone = Gone()
        committer = Committer(gone, lambda: NOW)  # type: ignore[arg-type]  # has what the committer asks of a store
        committer.lose(StoreLostError("gone", unsure=False))
        with pytest.raises(StoreLostError):
            committer.submit(_outcome(1), NOW)
        gone.back.set()
        await _until(lambda: committer.lost is None)
        assert await committer.write(_outcome(1), NOW) == Stored()
        await committer.close()

    asyncio.run(played())
