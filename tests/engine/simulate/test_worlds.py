"""Worlds: seeded, heterogeneous, and the same to a viewer whoever else comes."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from engine.log import Outcome
from engine.simulate import Situation, StreamingWorld, TinyWorld, Visit, World, respond

WORLDS: list[World] = [StreamingWorld(seed=3, viewers=300), TinyWorld(seed=3)]


def _futures(world: World, visit: Visit) -> list[list[Outcome]]:
    """What would follow a visit under every combination of actions."""
    slots = world.slots[visit.surface]
    names = sorted(slots)
    return [
        respond(world, visit, dict(zip(names, actions, strict=True)), "id")
        for actions in product(*(sorted(slots[name]) for name in names))
    ]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: type(w).__name__)
def test_every_distribution_sums_to_one_and_is_never_negative(world: World) -> None:
    cases = {
        world.responses(surface, situation, dict(zip(slots, actions, strict=True)))
        for surface, slots in world.slots.items()
        for actions in product(*slots.values())
        for situation in world.situations(surface)
    }
    assert len(cases) >= 4
    for case in cases:
        for distribution in case.by_metric.values():
            assert min(p for p, _ in distribution) >= 0
            assert sum(p for p, _ in distribution) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: type(w).__name__)
def test_situations_have_a_distribution_that_sums_to_one(world: World) -> None:
    for surface in world.slots:
        probabilities = world.situations(surface).values()
        assert min(probabilities) > 0
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)


def test_what_a_viewer_does_depends_on_no_other_viewer() -> None:
    """Ten seats of a small world and of a large one hold the same viewers with the same futures."""
    few, many = StreamingWorld(seed=3, viewers=10), StreamingWorld(seed=3, viewers=200)
    for day in (0, 5, 40):
        visits = few.visits(day)
        known = {visit.id: visit for visit in many.visits(day)}
        assert visits
        for visit in visits:
            assert known[visit.id] == visit
            assert _futures(many, known[visit.id]) == _futures(few, visit)


def test_another_seed_is_another_world() -> None:
    one, other = StreamingWorld(seed=1, viewers=50), StreamingWorld(seed=2, viewers=50)
    assert {v.at_us for v in one.visits(0)}.isdisjoint(v.at_us for v in other.visits(0))


def test_visits_come_in_order_on_their_own_day_and_have_ids_of_their_own() -> None:
    world = StreamingWorld(seed=3, viewers=200)
    seen: Counter[str] = Counter()
    for day in range(25, 30):  # clocks go forward on the 27th day, 2026-03-29
        times = [visit.at_us for visit in world.visits(day)]
        assert times == sorted(times)
        assert world.midnight(day) <= times[0]
        assert times[-1] < world.midnight(day + 1)
        seen.update(visit.id for visit in world.visits(day))
    assert world.midnight(28) - world.midnight(27) == 23 * 3_600_000_000
    assert max(seen.values()) == 1


def test_visits_have_the_situations_that_the_world_declares() -> None:
    """Frequencies over seats and far-apart days agree with the declared probabilities."""
    world = StreamingWorld(seed=3, viewers=400)
    visits = [visit for day in range(0, 400, 40) for visit in world.visits(day)]
    for surface in world.slots:
        declared = world.situations(surface)
        found = Counter(v.situation for v in visits if v.surface == surface)
        total = found.total()
        assert set(found) <= set(declared)
        for name, value in (("viewer", None), ("device", "tv"), ("hour", 21), ("weeks", 0)):
            share = sum(p for s, p in declared.items() if _is(s, name, value))
            count = sum(n for s, n in found.items() if _is(s, name, value))
            if 0 < share < 1:
                # Visits of one seat go together: judged by twice the binomial deviation.
                deviation = (share * (1 - share) / total) ** 0.5
                assert abs(count / total - share) < 4 * 2 * deviation, (surface, name)


def _is(situation: Situation, name: str, value: object) -> bool:
    if name == "viewer":
        return situation.viewer == "binger"
    return dict(situation.context).get(name) == value
