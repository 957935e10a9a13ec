"""Outcomes whose delay differs by action: a fixed window finds what joining on arrival misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import pytest

from engine.models import fresh
from engine.record import decode_record
from engine.simulate import run
from engine.simulate.world import Response, Responses, Situation, Visit
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace, workspace_from_content
from policies import Feedback, apply_floor, draw

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 20_000 * DAY
SITUATION = Situation("viewer", ())
VIEWERS, DAYS = 200, 6
CHANCE, AFTER = {"fast": 0.4, "slow": 0.6}, {"fast": HOUR // 12, "slow": 20 * HOUR}

CONTENT = {
    "surfaces": {
        "page": {
            "owner": "tests@example.com",
            "triggers": ["view"],
            "metrics": {"sale": {"window": "24h", "aggregate": "max"}},
            "reward": {"sale": 1.0},
            "slots": {
                "box": {
                    "default": "fast",
                    "policy": "p",
                    "actions": {"fast": {"value": 0}, "slow": {"value": 1}},
                }
            },
        }
    },
    "policies": {"p": {"kind": "thompson_gaussian", "floor": 0.1}},
}


@dataclass(frozen=True)
class Shop:
    """The better action's sale comes most of a day later; visits come through the day."""

    seed: int = 3

    @property
    def slots(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        return {"page": {"box": frozenset(CHANCE)}}

    def midnight(self, day: int) -> int:
        return START + day * DAY

    def visits(self, day: int) -> Sequence[Visit]:
        return [
            Visit(
                id=f"{number}/{day}",
                at_us=self.midnight(day) + number * DAY // VIEWERS,
                surface="page",
                trigger="view",
                situation=SITUATION,
                user_id=f"{number}-{day}",
            )
            for number in range(VIEWERS)
        ]

    def situations(self, surface: str) -> Mapping[Situation, float]:
        return {SITUATION: 1.0}

    def responses(
        self,
        surface: str,
        situation: Situation,
        shown: Mapping[str, str],
    ) -> Responses:
        return _RESPONSES[shown["box"]]


_RESPONSES = {
    action: Responses(
        MappingProxyType({"sale": ((1 - chance, None), (chance, Response(1.0, AFTER[action], 0)))})
    )
    for action, chance in CHANCE.items()
}


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return workspace_from_content(msgspec.json.encode(CONTENT))


def test_a_fixed_window_finds_the_action_whose_reward_comes_late(
    workspace: Workspace, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path}/log.db", writer="tests")
    try:
        for _ in run(Shop(), workspace, store, days=DAYS, warn=pytest.fail):
            pass
        rows = store.read(lambda c: ask.decisions_after(c, 0, 10_000))
    finally:
        store.close()
    records = [decode_record(row.record) for row in rows]
    last = [r for r in records if r.decided_at >= START + (DAYS - 1) * DAY]
    share = sum(r.choices[0].action == "slow" for r in last) / len(last)
    assert len(last) == VIEWERS
    assert share > 0.85


def test_joining_on_arrival_never_finds_it(workspace: Workspace) -> None:
    """What has not come by the day's end counts as nothing: so most learners are wired up."""
    policy = fresh(workspace.policies["p"])
    actions = tuple(workspace.surfaces["page"].slots["box"].actions.values())
    rng = np.random.default_rng(3)
    share = 0.0
    for _ in range(DAYS):
        lessons, slow = [], 0
        for number in range(VIEWERS):
            pmf = apply_floor(policy.pmf({}, actions), 0.1)
            place = draw(pmf, rng.random())
            id_ = actions[place].id
            slow += id_ == "slow"
            arrived = number * DAY // VIEWERS + AFTER[id_] <= DAY
            reward = float(arrived and rng.random() < CHANCE[id_])
            lessons.append(Feedback({}, actions, id_, float(pmf[place]), reward))
        policy.learn(lessons)
        share = slow / VIEWERS
    assert share < 0.15
