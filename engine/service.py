"""The engine at work: decisions logged before they are answered, outcomes, reloading, learning.

Everything here runs on one event loop. Configuration and models are one value that is replaced
whole, so that no request ever sees half of a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engine.answer import Answer, Recommended, answer, recommendation, unlogged_defaults
from engine.committer import Committer
from engine.constraints import Spend
from engine.decide import Inputs, Model, Serving, decide, spends
from engine.errors import (
    ConfigurationError,
    ConflictError,
    EngineError,
    NotFoundError,
    ReportError,
    RequestError,
    StoreError,
    StoreLostError,
)
from engine.explain import explain
from engine.forgetting import Forgotten, Person, forget
from engine.ids import (
    Clock,
    IdSource,
    SteadyClock,
    random_token,
    random_uuid7,
    rfc3339,
    system_clock,
)
from engine.items import MOST_ITEMS, ItemRequest, checked, item_document
from engine.learner import JudgeRequest, LearnerProcess, LearnRequest
from engine.lineage import lineages, rollback
from engine.log import (
    Entry,
    ExposureEntry,
    ItemsEntry,
    Late,
    Outcome,
    OutcomesEntry,
    Overspent,
    PromotionEntry,
    Refused,
    Repeated,
    Result,
    Settled,
    SettleEntry,
    SnapshotEntry,
    StickyTaken,
    Stored,
    VoidEntry,
    decision_entry,
    request_digest,
)
from engine.models import newer, restore, serving
from engine.recommending import (
    MOST_GATING,
    MOST_INTERACTIONS,
    ExternalRecommender,
    named_slate,
    recommended,
    told,
)
from engine.record import DecisionRecord, decode_record, fillings_of
from engine.replay import Replay, replay
from engine.request import DecideRequest, RecommendRequest, check_id
from engine.revisions import Revisions, activate, check_succession, revision_entry
from engine.shelf import with_models
from engine.slating import Filler
from engine.standing import check_learner
from engine.stocking import stocked
from engine.store import ModelRow, ModelStore, Store
from engine.store import read as ask
from engine.training import Following, followed, scorers_of
from engine.workspace import Workspace, load_workspace
from recsys.errors import RecsysError
from recsys.scoring import LinearScorer

MOST_OUTCOMES = 1_000
LONGEST_PAST_US = 400 * 86_400_000_000
LONGEST_FUTURE_US = 86_400_000_000
_MOST_TRIES = 4
_MOST_AHEAD_US = 60_000_000
_LONGEST_PROBE_S = 1.0
_FOLLOW_EVERY_S = 1.0
_KEEP_UP_EVERY_S = 30.0
_DEADLINE = "deadline"
_UNAVAILABLE = "the log is unavailable"
_FAULTS = {"NotFoundError": NotFoundError, "RequestError": RequestError}
_REFUSALS = {"conflict": ConflictError, "missing": NotFoundError, "invalid": RequestError}


T = TypeVar("T")


class Journal(Protocol):
    """Where the engine says what happened, without personal data."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class OutcomeRequest:
    """An outcome as a service sends it; times in microseconds, None for the time of receipt."""

    outcome_id: str
    metric: str
    value: float
    decision_id: str | None = None
    user_id: str | None = None
    occurred_at: int | None = None
    corrects: str | None = None
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the engine serves and whether it can."""

    revision: str
    snapshots: Mapping[str, str | None]
    waiting: int
    storing: bool
    reload_fault: str | None
    learning_fault: str | None


class Engine:
    """Decides, logs and learns for one workspace on one database."""

    def __init__(
        self,
        store: Store,
        workspace: Workspace,
        journal: Journal,
        *,
        folder: Path | None = None,
        clock: Clock = system_clock,
        new_id: IdSource = random_uuid7,
        observe_commit: Callable[[int, float], None] | None = None,
        external: ExternalRecommender | None = None,
    ) -> None:
        """Make the workspace the one that serves; call from a running event loop.

        Raises
        ------
        ConfigurationError
            If the workspace changes what a started experiment must keep.
        StoreError
            If the log goes on beyond the clock's time.
        """
        self._store = store
        self._folder = folder
        last = store.read(lambda c: max(ask.last_commit(c), ask.settled(c)))
        if last > clock() + _MOST_AHEAD_US:
            raise StoreError(
                f"the log goes on to {rfc3339(last)}, ahead of this machine's clock; "
                "mend the clock, or give another database"
            )
        # Outcomes received and draws learned are ordered by it: stepping back would change both.
        self._clock = SteadyClock(clock, last)
        self._new_id = new_id
        self._journal = journal
        self._revisions = Revisions(store)
        self._loop = asyncio.get_running_loop()
        # Beginnings first: a replica that follows the revision must find them, not make its own.
        self._serving = stocked(store, serving(store, workspace, self._clock(), self._warn), None)
        self._models = ModelStore(store.url)
        self._following: dict[str, Following] = {}
        self._scorers: dict[str, tuple[ModelRow, LinearScorer]] = {}
        self._serving = self._modelled(kept_up=True)
        activate(store, workspace, self._clock)
        self._filler = Filler(external)
        self._fallen_back: set[str] = set()
        self._committer = Committer(store, self._clock, observe_commit, longest_s=store.longest_s)
        self._learner = LearnerProcess(store.url)
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._seen = self._promoted = 0
        self._spent: dict[str, int] = store.read(ask.allowances)
        if store.shared:
            self._tasks.append(asyncio.create_task(self._follow_forever(), name="following"))
        self._tasks.append(asyncio.create_task(self._follow_models(), name="models"))
        self._reload_fault: str | None = None
        self._learning_fault: str | None = None

    @property
    def workspace(self) -> Workspace:
        """The revision that serves."""
        return self._serving.workspace

    def status(self) -> Status:
        """What serves now, and what failed last."""
        return Status(
            revision=self.workspace.revision,
            snapshots={id_: self._serving.models[id_].snapshot for id_ in self.workspace.learners},
            waiting=self._committer.waiting,
            storing=self._committer.failure is None,
            reload_fault=self._reload_fault,
            learning_fault=self._learning_fault,
        )

    async def probe(self) -> Status:
        """What serves now, after trying again to write if the last attempt failed.

        What is not ready is asked for nothing, so readiness cannot wait for the next request. The
        attempt says again that this revision serves or, where another process may have activated
        another since, writes the settled time that stands already.
        """
        if self._committer.failure is not None:
            now = self._clock()
            again = (
                SettleEntry(0)
                if self._store.shared
                else revision_entry(self.workspace, now, self.workspace.revision)
            )
            with suppress(StoreError, TimeoutError):
                ticket = self._committer.submit(again, now)
                try:
                    async with asyncio.timeout(_LONGEST_PROBE_S):
                        await asyncio.shield(ticket.done)
                finally:
                    self._committer.withdraw(ticket)
        return self.status()

    async def close(self) -> None:
        """Commit what was accepted, end the learner, release the database."""
        # Not cancelled: a thread that reads for a task would go on with a database that is closed.
        self._stopping.set()
        await self._learner.close()
        await asyncio.gather(*self._tasks)
        await self._filler.close()
        await self._committer.close()
        with suppress(StoreLostError):
            self._store.checkpoint()
        self._store.close()

    # Decisions --------------------------------------------------------------------------------

    async def decide(self, request: DecideRequest) -> Answer:
        """The answer to a request; durable in the log before it is returned.

        Where the record cannot be made durable, or not before the deadline, the declared defaults
        are answered and marked.

        Raises
        ------
        RequestError
            If the request names what the workspace does not have.
        ConflictError
            If its ``request_id`` was used with other content.
        """
        loop = asyncio.get_running_loop()
        deadline = None if request.deadline_ms is None else loop.time() + request.deadline_ms / 1e3
        current = self._serving
        try:
            inputs = await self._inputs(current, request, deadline)
        except (StoreError, TimeoutError) as error:
            record = self._decided(current, request, Inputs(spent=self._spent))
            return self._unlogged(record, current.workspace, _why(error))
        for _ in range(_MOST_TRIES):
            try:
                record = self._decided(current, request, inputs)
            except RequestError:
                known = await self._answered_before(request)
                if known is None:
                    raise
                return await self._repeated(known, request)
            try:
                record = await self._filled(current, record, request, inputs, deadline)
                if request.peek:
                    return answer(record, current.workspace, logged=False)
                result = await self._logged(current, record, request, deadline)
            except (StoreError, TimeoutError) as error:
                return self._unlogged(record, current.workspace, _why(error))
            match result:
                case Stored(void=True):
                    return self._unlogged(record, current.workspace, _DEADLINE)
                case Stored():
                    return answer(record, current.workspace)
                case Repeated():
                    return await self._repeated(result, request)
                case StickyTaken(draws=taken):
                    inputs = replace(inputs, sticky={**inputs.sticky, **taken})
        raise EngineError("the log changes faster than this decision can follow it; ask again")

    async def _inputs(
        self, current: Serving, request: DecideRequest, deadline: float | None
    ) -> Inputs:
        sticky = request.surface in current.workspace.surfaces_with_sticky
        slates = request.surface in current.workspace.surfaces_with_slates
        if not sticky and not slates:
            return Inputs(spent=self._spent)
        self._committer.check()
        now, unit = self._clock(), request.unit

        def read(connection: Any) -> Inputs:
            draws = ask.sticky_draws(connection, unit, now) if sticky else {}
            if not slates:
                return Inputs(draws, self._spent)
            kinds = current.workspace.gating_kinds
            did = told(
                ask.unit_interactions(connection, unit, MOST_INTERACTIONS, kinds, MOST_GATING)
            )
            return Inputs(draws, self._spent, did)

        async with asyncio.timeout_at(deadline):
            return await asyncio.to_thread(self._store.read, read)

    def _decided(self, current: Serving, request: DecideRequest, inputs: Inputs) -> DecisionRecord:
        now = self._clock()
        return decide(current, request, inputs, decision_id=self._new_id(now), now_us=now)

    async def _filled(
        self,
        current: Serving,
        record: DecisionRecord,
        request: DecideRequest,
        inputs: Inputs,
        deadline: float | None,
    ) -> DecisionRecord:
        """The record with its slates.

        Raises
        ------
        TimeoutError
            If they are not filled before the deadline.
        """
        if current.shelf is None:
            return record
        async with asyncio.timeout_at(deadline):
            filled = await self._filler.filled(
                current.workspace, current.shelf, record, request.context, inputs.history, deadline
            )
        fillings = fillings_of(filled)
        for id_, slate in filled.slates.items():
            filling = fillings.get(id_)
            why = slate.shortfall if filling is None else filling.fallback
            # Told when it begins and when it ends: in between, each record says so.
            if why and id_ not in self._fallen_back:
                self._fallen_back.add(id_)
                self._journal.warning(
                    "unfilled" if filling is None else "fell back", slate=id_, why=why
                )
            elif not why and id_ in self._fallen_back:
                self._fallen_back.discard(id_)
                self._journal.info("fell back no more", slate=id_)
        return filled

    def _unlogged(self, record: DecisionRecord, workspace: Workspace, why: str) -> Answer:
        self._journal.warning("unlogged", surface=record.surface, why=why)
        return unlogged_defaults(record, workspace, why)

    async def _logged(
        self,
        current: Serving,
        record: DecisionRecord,
        request: DecideRequest,
        deadline: float | None,
    ) -> Result:
        answer_by = None
        if request.deadline_ms is not None:
            answer_by = record.decided_at + 1_000 * request.deadline_ms
        spent = spends(current, record)
        entry = decision_entry(record, request, answer_by=answer_by, spends=spent)
        ticket = self._committer.submit(entry, record.decided_at)
        try:
            if deadline is None:
                result = await ticket.done
            else:
                async with asyncio.timeout_at(deadline):
                    result = await asyncio.shield(ticket.done)
            self._note(result, spent)
            return result
        except StoreLostError as lost:
            if lost.unsure:
                # If it is in the log after all, it is not what is answered: mark it.
                self._committer.persist(_void(record), record.decided_at)
            raise
        except TimeoutError:
            if not self._committer.withdraw(ticket):
                # On its way to the log already, though not what is answered: mark it.
                self._committer.persist(_void(record), record.decided_at)
            raise

    def _note(self, result: Result, spent: Sequence[Spend]) -> None:
        """Keep in mind what a result tells that the next attempt or decision turns on."""
        match result:
            case Stored():
                for each in spent:
                    self._spent[each.key] = self._spent.get(each.key, 0) + each.amount
            case Overspent(spent=known):
                self._spent.update(known)
            case Late(settled_us=settled_us):
                self._clock.advance(settled_us)

    async def recommend(self, request: RecommendRequest) -> Recommended:
        """One slate, and under which id it is in the log.

        Where the record cannot be made durable in time, the slate is answered and marked.

        Raises
        ------
        RequestError
            If the request names what the workspace does not have, or filters by what items cannot
            have.
        StoreError
            If what the unit did cannot be read.
        """
        loop, of = asyncio.get_running_loop(), request.of
        deadline = None if of.deadline_ms is None else loop.time() + of.deadline_ms / 1e3
        current = self._serving
        named_slate(current.workspace, of.surface, request.slate)
        try:
            inputs = await self._inputs(current, of, deadline)
            for _ in range(_MOST_TRIES):
                now = self._clock()
                record = recommended(current, request, decision_id=self._new_id(now), now_us=now)
                record = await self._filled(current, record, of, inputs, deadline)
                try:
                    result = await self._logged(current, record, of, deadline)
                except (StoreError, TimeoutError) as error:
                    self._journal.warning("unlogged", surface=of.surface, why=_why(error))
                    return recommendation(record, current.workspace, unlogged=_why(error))
                if isinstance(result, Stored):
                    why = _DEADLINE if result.void else None
                    return recommendation(record, current.workspace, unlogged=why)
        except RecsysError as error:
            raise RequestError("filters", f"cannot be: {error}") from error
        except TimeoutError as error:
            raise StoreLostError(
                "the deadline passed before the slate was filled", unsure=False
            ) from error
        raise EngineError("the log changes faster than this call can follow it; ask again")

    # Items ------------------------------------------------------------------------------------

    async def tell_items(self, requests: Sequence[ItemRequest], *, listed: bool) -> Stored:
        """Store news of items, all or none; the next slate knows of them.

        Raises
        ------
        RequestError
            At the first that cannot be stored, with the field.
        NotFoundError
            If one says no more than a block, or a removal, of an item that is not there.
        """
        if not 0 < len(requests) <= MOST_ITEMS:
            raise RequestError(
                "", f"holds {len(requests)} items; send at least one, at most {MOST_ITEMS:,}"
            )
        schema = self.workspace.items.schema
        now = self._clock()
        changes = []
        for index, request in enumerate(requests):
            prefix = f"[{index}]." if listed else ""
            at = self._plausible(f"{prefix}at", request.at, now)
            changes.append(checked(schema, request, prefix, at))
        await self._must_be_there(
            [
                (f"[{index}].item_id" if listed else "item_id", request.item_id)
                for index, request in enumerate(requests)
                if request.removed
                or (request.blocked is not None and not request.attributes and not request.vector)
            ]
        )
        result = await self._committer.write(ItemsEntry(tuple(changes)), now)
        await self._restock()
        return _stored(result, "")

    async def _must_be_there(self, named: Sequence[tuple[str, str]]) -> None:
        """Raises NotFoundError at the first that is none: a block of nothing would be trusted."""
        for field, item_id in named:
            found = await self._answered(
                partial(self._store.read, partial(ask.item, item_id=item_id))
            )
            if found is None or found.removed:
                raise NotFoundError(field, f'"{item_id}" is no item; mend the id, or send the item')

    async def item(self, item_id: str) -> dict[str, Any]:
        """What is known of an item, and since when, as JSON data.

        Raises
        ------
        NotFoundError
            If there is none of that id.
        """
        check_id("item_id", item_id)
        found = await self._answered(partial(self._store.read, partial(ask.item, item_id=item_id)))
        if found is None or found.removed:
            raise NotFoundError("item_id", f'"{item_id}" is no item')
        return item_document(item_id, found, self.workspace.items.schema)

    async def _restock(self) -> None:
        """Serve the items as they are stored by now."""
        async with self._changing:
            current = self._serving
            fresh = await self._answered(partial(stocked, self._store, current, current.shelf))
            self._serving = fresh

    # Models of recommenders ---------------------------------------------------------------------

    def _modelled(self, *, kept_up: bool) -> Serving:
        """What serves, with the models that were trained last, and kept up if asked."""
        current = self._serving
        if current.shelf is None:
            return current
        until = self._store.read(ask.last_interaction) if kept_up else None
        found = followed(
            self._store,
            self._models,
            current.workspace,
            self._following,
            current.shelf.catalogue,
            self._warn,
            until=until,
        )
        scorers = scorers_of(self._models, current.workspace, self._scorers, self._warn)
        if found == self._following and scorers == self._scorers:
            return current
        self._following, self._scorers = found, scorers
        models = {id_: of.versioned for id_, of in found.items()}
        learned = {id_: scorer for id_, (_, scorer) in scorers.items()}
        return replace(current, shelf=with_models(current.shelf, models, learned))

    async def follow_models(self, *, kept_up: bool = False) -> None:
        """Serve the models that were trained since, and what units did since, if that is asked."""
        async with self._changing:
            before = self._serving
            self._serving = await asyncio.to_thread(partial(self._modelled, kept_up=kept_up))
        if self._serving is not before and self._serving.shelf is not None:
            versions = {id_: of.version for id_, of in self._serving.shelf.models.items()}
            self._journal.info("recommends", models=versions)

    async def _follow_models(self) -> None:
        told, seconds = None, 0.0
        while not await self._stopped(_FOLLOW_EVERY_S):
            seconds += _FOLLOW_EVERY_S
            kept_up = seconds >= _KEEP_UP_EVERY_S
            if kept_up:
                seconds = 0.0
            try:
                await self.follow_models(kept_up=kept_up)
                told = None
            except EngineError as error:
                if str(error) != told:
                    told = str(error)
                    self._warn(told)

    async def _answered_before(self, request: DecideRequest) -> Repeated | None:
        """What a request was answered, though this revision would refuse it."""
        id_ = request.request_id
        if id_ is None or request.peek:
            return None
        found = await asyncio.to_thread(self._store.read, lambda c: ask.by_request(c, id_))
        return Repeated(*found) if found else None

    async def _repeated(self, result: Repeated, request: DecideRequest) -> Answer:
        if result.request_digest != request_digest(request):
            raise ConflictError(
                "request_id", f'"{request.request_id}" was used with other content; give a new id'
            )
        record = decode_record(result.data)
        workspace = await asyncio.to_thread(self._revisions.get, record.revision)
        void = self._committer.persists(_void(record))
        if not void:
            stored = await asyncio.to_thread(
                self._store.read, lambda c: ask.decision(c, record.decision_id)
            )
            void = stored is not None and stored.void is not None
        if void:
            # It was answered with the defaults, and they stay its answer.
            return unlogged_defaults(record, workspace, _DEADLINE)
        return answer(record, workspace)

    # What follows a decision ------------------------------------------------------------------

    async def expose(
        self, decision_id: str, slots: tuple[str, ...] | None, occurred_at: int | None
    ) -> Stored:
        """Log that a decision was shown; slots shown before are counted as duplicates.

        Raises
        ------
        NotFoundError
            If no such decision is stored.
        RequestError
            If a slot is none of the decision's, or the time is implausible.
        """
        check_id("decision_id", decision_id)
        if slots is not None and not slots:
            raise RequestError("slots", "is empty; name a slot, or leave it out for all")
        now = self._clock()
        moment = self._plausible("occurred_at", occurred_at, now)
        result = await self._committer.write(ExposureEntry(decision_id, slots, moment, now), now)
        return _stored(result, "")

    async def record_outcomes(self, requests: Sequence[OutcomeRequest], *, listed: bool) -> Stored:
        """Log outcomes, all or none; ``listed`` says whether fields are named with an index.

        Raises
        ------
        RequestError
            At the first that cannot be stored, with the field.
        ConflictError
            If an ``outcome_id`` was used with other content.
        """
        if not 0 < len(requests) <= MOST_OUTCOMES:
            raise RequestError(
                "", f"holds {len(requests)} outcomes; send at least one, at most {MOST_OUTCOMES}"
            )
        for _ in range(_MOST_TRIES):
            now = self._clock()
            outcomes = tuple(
                self._outcome(request, f"[{index}]." if listed else "", now)
                for index, request in enumerate(requests)
            )
            result = await self._committer.write(OutcomesEntry(outcomes), now)
            if not isinstance(result, Late):
                return _stored(result, "" if listed else "[0].")
            self._clock.advance(result.settled_us)
        raise EngineError("the log settles faster than outcomes can be stored; send them again")

    def _outcome(self, request: OutcomeRequest, prefix: str, now: int) -> Outcome:
        for name in ("outcome_id", "decision_id", "user_id", "corrects", "item_id"):
            value = getattr(request, name)
            if value is not None:
                check_id(prefix + name, value)
        if (request.decision_id is None) == (request.user_id is None):
            raise RequestError(
                f"{prefix}decision_id", "and `user_id` are exclusive; give exactly one"
            )
        if request.corrects is not None and request.item_id is not None:
            raise RequestError(
                f"{prefix}item_id", "is that of the outcome that this corrects; leave it out"
            )
        known = self.workspace.metric_names
        if request.metric not in known:
            raise RequestError(
                f"{prefix}metric",
                f'is "{request.metric[:64]}", which no surface declares; '
                f"known: {', '.join(sorted(known)) or 'none'}",
            )
        if not isfinite(request.value):
            raise RequestError(f"{prefix}value", f"is {request.value}; give a finite number")
        low, high = self.workspace.value_ranges.get(request.metric, (-inf, inf))
        if not low <= request.value <= high:
            raise RequestError(
                f"{prefix}value",
                f"is {request.value:g}; {request.metric} is declared to lie in [{low:g}, {high:g}]",
            )
        return Outcome(
            outcome_id=request.outcome_id,
            metric=request.metric,
            value=request.value,
            occurred_at=self._plausible(f"{prefix}occurred_at", request.occurred_at, now),
            received_at=now,
            timed=request.occurred_at is not None,
            decision_id=request.decision_id,
            unit=None if request.user_id is None else f"u:{request.user_id}",
            corrects=request.corrects,
            item_id=request.item_id,
            interaction=self._interaction(request),
        )

    def _interaction(self, request: OutcomeRequest) -> str | None:
        """What the outcome says that its unit did with an item, if it does."""
        if request.item_id is None:
            return None
        return self.workspace.items.interactions.get(request.metric)

    def _plausible(self, field: str, moment: int | None, now: int) -> int:
        if moment is None:
            return now
        if not now - LONGEST_PAST_US <= moment <= now + LONGEST_FUTURE_US:
            raise RequestError(
                field,
                "lies more than 400 days back or a day ahead; no window reaches there: "
                "check the clock and the unit of time",
            )
        return moment

    # Looking back -----------------------------------------------------------------------------

    async def explain(self, decision_id: str) -> dict[str, Any]:
        """The whole record of a decision with its outcomes, as JSON data."""
        return await asyncio.to_thread(explain, self._store, self._revisions, decision_id)

    async def replay(self, decision_id: str) -> Replay:
        """A decision made again from its record, compared byte for byte."""
        return await asyncio.to_thread(replay, self._store, self._revisions, decision_id)

    # Forgetting -------------------------------------------------------------------------------

    async def forget(self, person: Person) -> Forgotten:
        """Erase a person from the log, beside the decisions of others.

        Raises
        ------
        StoreError
            If the database refuses, or its files cannot be cleaned yet.
        """

        async def written(entry: Entry) -> None:
            # The clock, which remembers what it said last, is this loop's.
            await self._committer.write(entry, self._clock())

        def write(entry: Entry) -> None:
            asyncio.run_coroutine_threadsafe(written(entry), self._loop).result()

        forgotten = await asyncio.to_thread(
            forget, self._store, self._revisions, person, write=write, new_token=random_token
        )
        self._journal.info("forgot", decisions=forgotten.decisions, outcomes=forgotten.outcomes)
        return forgotten

    # Changing what serves ---------------------------------------------------------------------

    async def reload(self) -> bool:
        """Serve the workspace folder as it stands now; a broken edit keeps the last good one.

        True if the folder was sound; what is wrong with it is journalled and in the status.
        """
        if self._folder is None:
            return False
        async with self._changing:
            return await self._reload(self._folder)

    async def _reload(self, folder: Path) -> bool:
        try:
            workspace = await asyncio.to_thread(load_workspace, folder)
            if workspace.revision != self.workspace.revision:
                now = self._clock()
                ready = await asyncio.to_thread(
                    serving, self._store, workspace, now, self._warn, keep=self._keep
                )
                ready = await asyncio.to_thread(stocked, self._store, ready, self._serving.shelf)
                await self._activate(workspace)
                self._serving = ready
        except (ConfigurationError, StoreError) as error:
            self._reload_fault = str(error)
            self._journal.warning(
                "reload_refused", revision=self.workspace.revision, why=str(error)
            )
            return False
        self._reload_fault = None
        self._journal.info("reloaded", revision=workspace.revision)
        return True

    async def _activate(self, workspace: Workspace) -> None:
        """Make a revision the one that serves, checked against the one that does so until then."""
        while True:
            latest = await asyncio.to_thread(self._store.read, ask.latest_revision)
            await asyncio.to_thread(check_succession, self._revisions, workspace)
            now = self._clock()
            entry = revision_entry(workspace, now, latest)
            if isinstance(await self._committer.write(entry, now), Stored):
                return

    def _keep(self, beginnings: Sequence[SnapshotEntry]) -> None:
        """Store snapshots through the committer, from another thread than the event loop's."""
        for beginning in beginnings:
            write = self._committer.write(beginning, beginning.created_at)
            asyncio.run_coroutine_threadsafe(write, self._loop).result()

    async def follow_once(self) -> None:
        """Serve what another process stored since: its revision, its snapshots."""
        async with self._changing:
            digest, last, step, spent = await self._answered(
                partial(
                    self._store.read,
                    lambda c: (
                        ask.latest_revision(c),
                        ask.last_snapshot(c),
                        ask.last_promotion(c),
                        ask.allowances(c),
                    ),
                )
            )
            self._spent.update(spent)
            moved = digest is not None and digest != self.workspace.revision
            if digest is not None and (moved or step != self._promoted):
                workspace = await self._answered(partial(self._revisions.get, digest))
                ready = await self._answered(
                    partial(serving, self._store, workspace, self._clock(), self._warn)
                )
                self._serving = await self._answered(
                    partial(stocked, self._store, ready, self._serving.shelf)
                )
                self._journal.info("followed", revision=digest)
            elif last != self._seen:
                current = self._serving
                fresh = await self._answered(partial(newer, self._store, current, self._warn))
                self._serving = replace(current, models={**current.models, **fresh})
            self._seen, self._promoted = last, step
            current = self._serving
            self._serving = await self._answered(
                partial(stocked, self._store, current, current.shelf)
            )

    async def _follow_forever(self) -> None:
        told = None
        while not await self._stopped(_FOLLOW_EVERY_S):
            try:
                await self.follow_once()
                told = None
            except EngineError as error:
                if isinstance(error, StoreLostError):
                    # Readiness tells, though nobody has asked for a decision since.
                    self._committer.lose(error)
                if str(error) != told:
                    told = str(error)
                    self._warn(told)

    async def _answered(self, ask_store: Callable[[], T]) -> T:
        """What a thread is told by the store; a database that does not answer in time is lost."""
        try:
            async with asyncio.timeout(self._store.longest_s):
                return await asyncio.to_thread(ask_store)
        except TimeoutError as error:
            self._store.cut()
            raise StoreLostError("the database does not answer", unsure=False) from error

    async def _stopped(self, within_s: float) -> bool:
        """Whether this engine is to close, after waiting some seconds for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stopping.wait()
        return self._stopping.is_set()

    def learn_every(self, seconds: float) -> None:
        """Begin to learn from matured decisions, in a child process, again and again."""
        self._tasks.append(asyncio.create_task(self._learn_forever(seconds), name="learning"))

    async def learn_once(self) -> int:
        """Learn from what is matured and durable, and serve the result; how many learned.

        None do where another process has the learner's place.
        """
        if not await self._answered(self._store.lead):
            return 0
        request = LearnRequest(self.workspace.revision, await self._settle(), self._clock())
        reply = await self._learner.learn(request)
        for warning in reply.warnings:
            self._warn(warning)
        self._learning_fault = reply.warnings[-1] if reply.warnings else None
        if not await self._answered(self._store.lead):
            # Whoever took the place meanwhile learned the same.
            return 0
        async with self._changing:
            await self._swap_in(reply.snapshots)
        return len(reply.snapshots)

    async def _settle(self) -> int:
        """The time up to which everything stamped is durable, in any process, from now on."""
        until = self._committer.watermark() - self._store.settle_after_us
        result = await self._committer.write(SettleEntry(until), self._clock())
        if not isinstance(result, Settled):
            raise EngineError(f"unexpected result {type(result).__name__}")
        return result.until_us

    # Promoting and rolling back ---------------------------------------------------------------

    async def promote(self, learner: str) -> dict[str, Any]:
        """Judge a learner's candidate, and have it serve if it passes; what was found.

        Raises
        ------
        NotFoundError
            If there is no such learner.
        RequestError
            If it has no candidate that could be promoted.
        ConflictError
            If it was promoted or rolled back meanwhile.
        ReportError
            If the log cannot be judged by.
        """
        check_learner(self.workspace, learner)
        revision, until = self.workspace.revision, await self._settle()
        reply = await self._learner.judge(JudgeRequest(revision, learner, until, self._clock()))
        if reply.fault is not None:
            kind, field, message = reply.fault
            refused = _FAULTS.get(kind)
            raise refused(field, message) if refused else ReportError(message)
        if reply.entry is not None:
            await self._serve_by(reply.entry)
        self._journal.info("judged", learner=learner, verdict=reply.report["verdict"])
        return reply.report

    async def roll_back(self, learner: str, to: str | None = None) -> dict[str, Any]:
        """Put back what served before, or hold a learner at an earlier snapshot; what serves.

        Raises
        ------
        NotFoundError
            If there is no such learner or snapshot.
        RequestError
            If nothing was promoted that could be undone.
        """
        entry = await asyncio.to_thread(
            rollback, self._store, self.workspace, learner, to, self._clock()
        )
        await self._serve_by(entry)
        serves = self._serving.models.get(learner)
        self._journal.info("rolled_back", learner=learner, to=to)
        return {
            "learner": learner,
            "what": entry.what,
            "serves": "candidate" if serves and serves.spec else "declared",
            "snapshot": serves.snapshot if serves else None,
            "pinned": bool(serves and serves.pinned),
        }

    async def lineages(self) -> dict[str, Any]:
        """Each learner's snapshots and promotions, and what of them serves."""
        return await asyncio.to_thread(lineages, self._store, self.workspace)

    async def _serve_by(self, entry: PromotionEntry) -> None:
        """Store a step of a history, and serve what it says."""
        async with self._changing:
            _stored(await self._committer.write(entry, self._clock()), "")
            ready = await asyncio.to_thread(
                serving, self._store, self.workspace, self._clock(), self._warn, keep=self._keep
            )
            self._serving = await asyncio.to_thread(
                stocked, self._store, ready, self._serving.shelf
            )

    async def _swap_in(self, snapshots: Sequence[SnapshotEntry]) -> None:
        """Store snapshots and serve those that are of the current revision's learners."""
        fresh: dict[str, Model] = {}
        for snapshot in snapshots:
            policy = restore(snapshot.data, snapshot.digest)
            await self._committer.write(snapshot, snapshot.created_at)
            serves = self._serving.models.get(snapshot.learner)
            declared = self.workspace.learners.get(snapshot.learner)
            spec = (serves and serves.spec) or (declared and declared.spec)
            if serves and not serves.pinned and spec == snapshot.spec:
                fresh[snapshot.learner] = replace(
                    serves, policy=policy, snapshot=snapshot.digest, learned=snapshot.learned
                )
                self._journal.info(
                    "learned",
                    learner=snapshot.learner,
                    snapshot=snapshot.digest[:12],
                    learned=snapshot.learned,
                )
        if fresh:
            current = self._serving
            self._serving = replace(current, models={**current.models, **fresh})

    async def _learn_forever(self, seconds: float) -> None:
        wait_s = 0.0
        while not await self._stopped(wait_s):
            wait_s = seconds
            try:
                await self.learn_once()
            except (EngineError, OSError) as error:
                if not self._stopping.is_set():
                    self._learning_fault = str(error)
                    self._warn(str(error))

    def _warn(self, message: str) -> None:
        self._journal.warning("engine", message=message)


def _void(record: DecisionRecord) -> VoidEntry:
    return VoidEntry(record.decision_id, "answered before it was durable")


def _why(error: Exception) -> str:
    return _DEADLINE if isinstance(error, TimeoutError) else _UNAVAILABLE


def _stored(result: Result, drop: str) -> Stored:
    """The result of an entry that can only be stored or refused."""
    match result:
        case Stored():
            return result
        case Refused(field=field, message=message, why=why):
            raise _REFUSALS[why](field.removeprefix(drop), message)
        case _:
            raise EngineError(f"unexpected result {type(result).__name__}")
