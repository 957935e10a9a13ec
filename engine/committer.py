"""Group commit: what queued during the last commit is the next batch. No timer, no journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from engine.errors import StoreError, StoreLostError
from engine.ids import Clock
from engine.log import Entry, Result
from engine.store import Store

MOST_IN_BATCH = 512
MOST_WAITING = 20_000
CHECKPOINT_EVERY = 200
_RETRY_S = 0.5


@dataclass(slots=True, eq=False)
class Ticket:
    """An entry on its way to durability."""

    entry: Entry
    done: asyncio.Future[Result]
    since: int
    taken: bool = False


class Committer:
    """Makes entries durable in batches, on one thread of its own.

    All methods are called on the event loop that it was started on.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        observe: Callable[[int, float], None] | None = None,
        *,
        longest_s: float | None = None,
    ) -> None:
        """``observe`` receives each batch's size and its duration in seconds.

        A batch that takes longer than ``longest_s`` is lost; None waits for ever.
        """
        self._longest_s = longest_s
        self._store = store
        self._clock = clock
        self._observe = observe
        self._waiting: list[Ticket] = []
        self._committing: list[Ticket] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._held: list[tuple[Entry, int]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._folding: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._task = asyncio.create_task(self._run(), name="committer")
        self.failure: StoreError | None = None
        self.lost: StoreLostError | None = None
        """Why the database cannot be reached; until it can, nothing is queued."""

    @property
    def waiting(self) -> int:
        """Entries that are queued and not yet taken."""
        return len(self._waiting)

    def submit(self, entry: Entry, since: int) -> Ticket:
        """Queue an entry; its ``done`` resolves when it is durable, or raises StoreError.

        ``since`` is the time that the entry was stamped with: the watermark stays below it.

        Raises
        ------
        StoreError
            If the queue is full or closed, or the database is lost: nothing was queued.
        """
        if self._closing:
            raise StoreError("the server is stopping; ask again")
        self.check()
        if len(self._waiting) >= MOST_WAITING:
            raise StoreError(f"{MOST_WAITING:,} entries wait for the database; ask again later")
        ticket = Ticket(entry, self._loop.create_future(), since)
        self._waiting.append(ticket)
        self._wake.set()
        return ticket

    def check(self) -> None:
        """Raises StoreLostError while the database is known to be out of reach: nobody waits."""
        if self.lost:
            raise StoreLostError(str(self.lost), unsure=False)

    def lose(self, error: StoreLostError) -> None:
        """Refuse entries until the database answers again, since it was found out of reach."""
        self.failure = self.lost = error
        self._wake.set()

    async def write(self, entry: Entry, since: int) -> Result:
        """Make one entry durable."""
        return await self.submit(entry, since).done

    def withdraw(self, ticket: Ticket) -> bool:
        """Take back an entry that is still queued; False if it may already be on its way."""
        if ticket.taken or ticket not in self._waiting:
            return False
        self._waiting.remove(ticket)
        ticket.done.cancel()
        return True

    def watermark(self) -> int:
        """The last microsecond of which all that was stamped by it is durable."""
        pending = [ticket.since for ticket in (*self._committing, *self._waiting)]
        held = [since for _, since in self._held]
        return min([*pending, *held], default=self._clock()) - 1

    def persist(self, entry: Entry, since: int) -> None:
        """Queue an entry that must be stored, again and again until it is, at last by ``close``.

        The watermark stays below ``since`` as long. To store it twice must do no harm.
        """
        self._held.append((entry, since))
        task = asyncio.create_task(self._persisted(entry, since), name="persist")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def persists(self, entry: Entry) -> bool:
        """Whether an entry that must be stored may not be so yet."""
        return any(held == entry for held, _ in self._held)

    async def _persisted(self, entry: Entry, since: int) -> None:
        while not self._closing:
            try:
                await self.write(entry, since)
            except StoreError:
                await asyncio.sleep(_RETRY_S)
            else:
                self._held.remove((entry, since))
                break

    def _checkpoint(self) -> None:
        """Fold the write-ahead log back beside the commits, which it does not hold up."""
        if self._folding is None or self._folding.done():
            self._folding = asyncio.create_task(self._folded(), name="checkpoint")

    async def _folded(self) -> None:
        with suppress(StoreError):
            await asyncio.to_thread(self._store.checkpoint)

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closing = True
        self._wake.set()
        with suppress(asyncio.CancelledError):
            await self._task
        for task in [*self._background, *([self._folding] if self._folding else [])]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        loop = asyncio.get_running_loop()
        left = [Ticket(entry, loop.create_future(), since) for entry, since in self._held]
        if left:
            await self._commit(loop, left)
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        batches = 0
        while True:
            if self.lost:
                await self._found(loop)
            if not self._waiting:
                if self._closing:
                    break
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._waiting[:MOST_IN_BATCH]
            del self._waiting[: len(batch)]
            for ticket in batch:
                ticket.taken = True
            self._committing = batch
            began = loop.time()
            await self._commit(loop, batch)
            self._committing = []
            if self._observe:
                self._observe(len(batch), loop.time() - began)
            batches += 1
            if batches % CHECKPOINT_EVERY == 0:
                self._checkpoint()

    async def _found(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail what waits, and ask for the database until it answers."""
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            _fail(ticket, StoreLostError(str(self.lost), unsure=False))
        while self.lost and not self._closing:
            await asyncio.sleep(_RETRY_S)
            with suppress(StoreError):
                await loop.run_in_executor(self._thread, self._store.ping)
                self.lost = None

    async def _commit(self, loop: asyncio.AbstractEventLoop, batch: list[Ticket]) -> None:
        entries = [ticket.entry for ticket in batch]
        try:
            results = await self._written(loop, entries)
        except StoreLostError as lost:
            # Nothing else would fare better: nobody waits until each was tried.
            self.lose(lost)
            for ticket in batch:
                _fail(ticket, lost)
            return
        except Exception as unforeseen:  # noqa: BLE001  whatever it is, callers wait and the next batch must go
            error = _as_store_error(unforeseen)
            self.failure = error
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            # One bad entry must not refuse its neighbours: each is tried alone.
            for place, ticket in enumerate(batch):
                await self._commit(loop, [ticket])
                if self.lost:
                    for left in batch[place + 1 :]:
                        _fail(left, StoreLostError(str(self.lost), unsure=False))
                    return
            return
        self.failure = None
        for ticket, result in zip(batch, results, strict=True):
            if not ticket.done.done():
                ticket.done.set_result(result)

    async def _written(
        self, loop: asyncio.AbstractEventLoop, entries: Sequence[Entry]
    ) -> list[Result]:
        write = partial(self._store.write, entries, self._clock(), live=True)
        writing = loop.run_in_executor(self._thread, write)
        if self._longest_s is None:
            return await writing
        done, _ = await asyncio.wait({writing}, timeout=self._longest_s)
        if not done:
            # Its thread ends with its connection; what it makes of that nobody waits for.
            writing.add_done_callback(lambda ended: ended.exception())
            self._store.cut()
            raise StoreLostError("the database does not answer", unsure=True)
        return writing.result()


def _as_store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(f"the log failed unforeseen: {type(error).__name__}: {error}")


def _fail(ticket: Ticket, error: StoreError) -> None:
    if not ticket.done.done():
        ticket.done.set_exception(error)
        # Nobody waits for an entry whose caller was answered at its deadline.
        ticket.done.exception()
