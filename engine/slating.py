"""Filling the slates of a record beside the event loop, with recommenders elsewhere asked first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from engine.recommending import (
    ExternalError,
    ExternalRecommender,
    ask_of,
    call_of,
    fill,
    wanted,
    with_slates,
)
from engine.record import DecisionRecord, RecommendedRecord, SlateRecord
from engine.shelf import Given, Shelf, Source
from engine.workspace import Slate, Workspace
from recsys import Slate as Filled
from recsys.call import Call, Interaction
from recsys.errors import RecsysError

_SHARE = 0.5
"""Of the time that a request has left, what a recommender elsewhere may take."""


class Filler:
    """Fills slates on a thread of its own, so that no other decision waits meanwhile."""

    def __init__(self, external: ExternalRecommender | None = None) -> None:
        """``external`` asks recommenders elsewhere; without it they are fallen back from."""
        self._external = external
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slates")

    async def filled(
        self,
        workspace: Workspace,
        shelf: Shelf,
        record: DecisionRecord,
        context: Mapping[str, Any],
        history: tuple[Interaction, ...],
        deadline: float | None,
    ) -> DecisionRecord:
        """The record with the slates that it asks for.

        ``context`` is the request's, ``deadline`` a time of the event loop's clock.

        A decision is not lost for one of its slates: that one is empty and says why.

        Raises
        ------
        RecsysError
            If a call for one slate asks for what the catalogue cannot give.
        """
        slates = wanted(workspace, record)
        if not slates:
            return record
        ask = ask_of(workspace, record, context, history)
        alone = isinstance(record.recommended, RecommendedRecord)

        async def one(slate: Slate) -> tuple[Filled, SlateRecord | None]:
            try:
                return await self._fill(workspace, slate, call_of(slate, ask), shelf, deadline)
            except RecsysError as error:
                if alone:
                    raise
                return Filled(f"{ask.id}/{slate.id}", (), f"could not be filled: {error}"), None

        found = await asyncio.gather(*map(one, slates))
        return with_slates(record, {s.id: one for s, one in zip(slates, found, strict=True)})

    async def _fill(
        self,
        workspace: Workspace,
        slate: Slate,
        call: Call,
        shelf: Shelf,
        deadline: float | None,
    ) -> tuple[Filled, SlateRecord | None]:
        recommender, source, fallback, asked_s = await self._source(
            workspace, slate, call, shelf, deadline
        )
        work = partial(
            fill,
            slate,
            call,
            shelf,
            source,
            recommender=recommender,
            fallback=fallback,
            asked_s=asked_s,
            timer=time.perf_counter,
        )
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _source(
        self, workspace: Workspace, slate: Slate, call: Call, shelf: Shelf, deadline: float | None
    ) -> tuple[str, Source, str | None, float | None]:
        """Who proposes, what is proposed, why by another than declared, and the seconds asked."""
        declared = workspace.recommenders[slate.recommender]
        if declared.url is None:
            return declared.id, shelf.source(declared.id), shelf.fault(declared.id), None
        instead = declared.fallback or declared.id
        began = time.perf_counter()
        try:
            if self._external is None:
                raise ExternalError("this process asks no recommenders elsewhere")
            timeout_s = declared.deadline_us / 1e6
            if deadline is not None:
                left_s = deadline - asyncio.get_running_loop().time()
                timeout_s = max(0.0, min(timeout_s, _SHARE * left_s))
            ranked = await self._external.rank(
                declared, slate.plan.kind, call, slate.plan.candidates, timeout_s
            )
        except ExternalError as error:
            why = f"{declared.id}: {error}"
            return instead, shelf.source(instead), why, time.perf_counter() - began
        given = Given(declared.id, ranked, shelf.source(instead).candidates)
        source = Source(given, ranked.trace_id)
        return declared.id, source, None, time.perf_counter() - began

    async def close(self) -> None:
        """End the thread, and let go of connections."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._external is not None:
            await self._external.close()
