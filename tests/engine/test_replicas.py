"""Several engines on one PostgreSQL: the same answers, one learner, and everyone follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from engine.answer import Answer
from engine.ids import rfc3339
from engine.log import PromotionEntry, Stored
from engine.request import DecideRequest
from engine.service import Engine, OutcomeRequest
from engine.store import Store
from engine.store import read as ask
from engine.workspace import load_workspace
from tests.engine.build import DAY, HOUR, NOW, workspace_of
from tests.engine.test_service import LEARNER, LEARNING, WORLD, Clock, Journal

Scene = Callable[[Engine, Engine], Awaitable[None]]


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@asynccontextmanager
async def _engine(url: str, folder: Path, clock: Clock) -> AsyncIterator[Engine]:
    store = Store(url, writer="a replica")
    engine = Engine(store, load_workspace(folder), Journal(), folder=folder, clock=clock)
    try:
        yield engine
    finally:
        await engine.close()


def _play(
    url: str, folder: Path, scene: Scene, first: Clock | None = None, second: Clock | None = None
) -> None:
    """A scene with two engines on one workspace folder."""

    async def played() -> None:
        clock = first or Clock()
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(_engine(url, folder, clock))
            other = await stack.enter_async_context(_engine(url, folder, second or clock))
            await scene(one, other)

    asyncio.run(played())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace that learns."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return _edit(folder, LEARNING)


def _edit(folder: Path, content: str) -> Path:
    (folder / "all.yaml").write_text(content, encoding="utf-8")
    return folder


async def _asked(engine: Engine, request_id: str | None = None, user: str = "1") -> Answer:
    return await engine.decide(DecideRequest(surface="home", user_id=user, request_id=request_id))


def test_a_replica_follows_what_another_promotes_and_rolls_back(url: str, folder: Path) -> None:
    text = LEARNING.replace("{kind: thompson", "{candidate: {kind: lin_greedy}, kind: thompson")
    _edit(folder, text.replace("window: 1h", "window: 1h, range: [0, 9]"))

    async def scene(one: Engine, other: Engine) -> None:
        spec = one.workspace.candidates[LEARNER].spec
        store = Store(url, writer="tests")
        try:
            promoted = PromotionEntry(LEARNER, "promote", spec, None, 0, NOW, "{}", 0)
            assert store.write([promoted], NOW) == [Stored()]
        finally:
            store.close()
        for engine in (one, other):
            await engine.follow_once()
            assert (await engine.lineages())[LEARNER]["serves"]["what"] == "candidate"
        await one.roll_back(LEARNER)
        before = other.status().snapshots[LEARNER]
        await other.follow_once()
        assert other.status().snapshots[LEARNER] != before

    _play(url, folder, scene)


def test_a_request_is_answered_alike_by_every_replica(url: str, folder: Path) -> None:
    async def scene(one: Engine, other: Engine) -> None:
        asked = [(engine, f"r{n}") for n in range(40) for engine in (one, other)]
        answers = await asyncio.gather(*(_asked(engine, id_) for engine, id_ in asked))
        assert answers[::2] == answers[1::2]
        assert all(answer.logged for answer in answers)
        assert len({answer.decision_id for answer in answers}) == 40

    _play(url, folder, scene)


def test_a_sticky_draw_is_one_for_all_replicas(url: str, folder: Path) -> None:
    sticky = LEARNING.replace("thompson_gaussian", "uniform, draw: sticky, period: 7d")

    async def scene(one: Engine, other: Engine) -> None:
        users = [str(n) for n in range(30)]
        asked = [(engine, user) for user in users for engine in (one, other)]
        answers = await asyncio.gather(*(_asked(engine, user=user) for engine, user in asked))
        chosen = [answer.config for answer in answers]
        assert chosen[::2] == chosen[1::2]
        assert len({config["layout"] for config in chosen}) == 2

    _play(url, _edit(folder, sticky), scene)


def test_a_revision_that_one_replica_activates_serves_in_all(url: str, folder: Path) -> None:
    async def scene(one: Engine, other: Engine) -> None:
        _edit(folder, WORLD)
        assert await one.reload()
        await other.follow_once()
        assert other.status().revision == one.status().revision == workspace_of(WORLD).revision
        answer = await _asked(other, "r")
        assert answer.revision == one.status().revision
        assert await _asked(one, "r") == answer

    _play(url, folder, scene)


def test_a_followed_revision_is_not_activated_again(url: str, folder: Path) -> None:
    async def scene(one: Engine, other: Engine) -> None:
        _edit(folder, WORLD)
        await one.reload()
        await other.follow_once()
        with Store(url) as reader:
            assert reader.read(ask.first_activation) is not None
            assert len(reader.read(ask.revisions_newest_first)) == 2
        before = other.status()
        await other.follow_once()
        assert other.status() == before

    _play(url, folder, scene)


async def _decide_and_report(engine: Engine, clock: Clock) -> None:
    for number in range(4):
        answer = await _asked(engine)
        await engine.record_outcomes(
            [OutcomeRequest(f"{answer.decision_id}-o", "watch", 1.0, answer.decision_id)],
            listed=False,
        )
        clock.now += HOUR * (number + 1)
    clock.now += DAY


def test_one_replica_learns_and_all_serve_what_it_learned(url: str, folder: Path) -> None:
    clock = Clock()

    async def scene(one: Engine, other: Engine) -> None:
        await _decide_and_report(other, clock)
        assert await one.learn_once() == 1
        assert await other.learn_once() == 0
        await other.follow_once()
        learned = one.status().snapshots[LEARNER]
        assert other.status().snapshots[LEARNER] == learned
        assert (await _asked(other)).choices[0].snapshot == learned

    _play(url, folder, scene, clock)


def test_when_the_learner_is_gone_another_learns_on(url: str, folder: Path) -> None:
    clock = Clock()

    async def played() -> None:
        async with _engine(url, folder, clock) as other:
            async with _engine(url, folder, clock) as one:
                await _decide_and_report(one, clock)
                assert await one.learn_once() == 1
                assert await other.learn_once() == 0
            await _decide_and_report(other, clock)
            await other.follow_once()
            parent = other.status().snapshots[LEARNER]
            assert await other.learn_once() == 1
            spec = other.workspace.learners[LEARNER].spec
        with Store(url) as reader:
            newest, before, *_ = reader.read(lambda c: ask.lineage(c, LEARNER, spec))
        assert (newest.parent, before.digest) == (parent, parent)
        assert (newest.learned, before.learned) == (8, 4)

    asyncio.run(played())


def test_a_replica_whose_clock_is_behind_stamps_after_what_is_settled(
    url: str, folder: Path
) -> None:
    """Learning has passed the time that its clock tells; so it stands still at a later one."""
    ahead, behind = Clock(NOW + HOUR), Clock(NOW)

    async def scene(one: Engine, other: Engine) -> None:
        assert await one.learn_once() == 0
        with Store(url) as reader:
            settled = reader.read(ask.settled)
        assert settled == NOW + HOUR - 1 - 5_000_000
        answer = await _asked(other, "r")
        assert answer.logged
        assert answer.decided_at == rfc3339(settled + 1)
        stored = await other.record_outcomes(
            [OutcomeRequest("o", "watch", 1.0, answer.decision_id)], listed=False
        )
        assert stored.accepted == 1

    _play(url, folder, scene, ahead, behind)


def test_an_outcome_alone_is_stamped_after_what_is_settled(url: str, folder: Path) -> None:
    ahead, behind = Clock(NOW + HOUR), Clock(NOW)

    async def scene(one: Engine, other: Engine) -> None:
        await one.learn_once()
        stored = await other.record_outcomes(
            [OutcomeRequest("o", "watch", 1.0, user_id="1")], listed=False
        )
        assert stored.accepted == 1
        with Store(url) as reader:
            (row,) = reader.read(lambda c: ask.outcomes_after(c, 0, 9))
            assert row.received_at == reader.read(ask.settled) + 1

    _play(url, folder, scene, ahead, behind)
