"""What two slots that go together earn while they learn, beside Vowpal Wabbit's slates.

A hero and an aside of four actions each, three kinds of viewers. A pair is clicked with a
probability of its own for each kind: .05 but for one pair in each row and column, which has between
.2 and .6. The slots learn from the click alone. In a second world somebody else chooses the hero,
evenly, and in a third each action adds its own part, so that slots could be learned apart. One
pass, every pmf mixed with the uniform one (floor .02 in each slot); the mean over seeds with its
standard deviation, beside the best that a policy could earn.

    python -m benchmarks.slots [--rounds N] [--seeds N]
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from vowpalwabbit import Workspace

from policies import Action, Feedback, FloatArray, apply_floor, draw, make_policy, normalise

KINDS, ACTIONS, FLOOR = 3, 4, 0.02
HERO, ASIDE = (tuple(Action(f"{slot}{a}") for a in range(ACTIONS)) for slot in "ha")


class Turn(NamedTuple):
    """What was chosen, and with which probabilities."""

    hero: int
    aside: int
    p_hero: float
    p_aside: float


class Learner(Protocol):
    """Chooses for a kind of viewer by two uniform numbers, and learns from the click.

    ``floor`` is the hero's: at 1 it is chosen evenly, whatever was learned.
    """

    def choose(self, kind: int, u: FloatArray, floor: float) -> Turn: ...

    def learn(self, kind: int, turn: Turn, click: float) -> None: ...


class Own:
    """A policy for each slot; with ``together`` the aside reads what the hero got."""

    def __init__(self, together: bool, name: str, parameters: Mapping[str, object]) -> None:
        self._together = together
        self._hero = make_policy(name, **parameters)
        self._aside = make_policy(name, **parameters)

    def choose(self, kind: int, u: FloatArray, floor: float) -> Turn:
        first = apply_floor(self._hero.pmf(self._context(kind), HERO), floor)
        hero = draw(first, u[0])
        second = apply_floor(self._aside.pmf(self._context(kind, hero), ASIDE), FLOOR)
        aside = draw(second, u[1])
        return Turn(hero, aside, float(first[hero]), float(second[aside]))

    def learn(self, kind: int, turn: Turn, click: float) -> None:
        hero, aside = HERO[turn.hero].id, ASIDE[turn.aside].id
        self._hero.learn([Feedback(self._context(kind), HERO, hero, turn.p_hero, click)])
        context = self._context(kind, turn.hero)
        self._aside.learn([Feedback(context, ASIDE, aside, turn.p_aside, click)])

    def _context(self, kind: int, hero: int | None = None) -> dict[str, str]:
        given = {} if hero is None or not self._together else {"slot.hero": HERO[hero].id}
        return {"kind": f"k{kind}", **given}


class Slates:
    """Vowpal Wabbit's slates from text, which predict each slot given the viewer alone."""

    def __init__(self) -> None:
        self._workspace = Workspace("--quiet --slates -q ca -q cs --squarecb")
        self._actions = [f"slates action 0 |a h{a}" for a in range(ACTIONS)]
        self._actions += [f"slates action 1 |a a{a}" for a in range(ACTIONS)]

    def choose(self, kind: int, u: FloatArray, floor: float) -> Turn:
        text = [f"slates shared |c k{kind}", *self._actions, "slates slot |s 0", "slates slot |s 1"]
        pmfs = []
        for scores, spread in zip(self._workspace.predict(text), (floor, FLOOR), strict=True):
            pmf = normalise(np.array([p for _, p in sorted(scores)], dtype=np.float64))
            pmfs.append(apply_floor(pmf, spread))
        hero, aside = (draw(pmf, float(at)) for pmf, at in zip(pmfs, u, strict=True))
        return Turn(hero, aside, float(pmfs[0][hero]), float(pmfs[1][aside]))

    def learn(self, kind: int, turn: Turn, click: float) -> None:
        slots = [
            f"slates slot {turn.hero}:{turn.p_hero} |s 0",
            f"slates slot {turn.aside}:{turn.p_aside} |s 1",
        ]
        shared = f"slates shared {-click} |c k{kind}"
        self._workspace.learn([shared, *self._actions, *slots])


LEARNERS: Mapping[str, Callable[[], Learner]] = {
    "uniform": lambda: Own(False, "uniform", {}),
    "VW slates, squarecb": Slates,
    "vw, apart": lambda: Own(False, "vw", {}),
    "vw, aside after hero": lambda: Own(True, "vw", {}),
    "lin_ts, apart": lambda: Own(False, "lin_ts", {}),
    "lin_ts, aside after hero": lambda: Own(True, "lin_ts", {}),
}


def pairs(seed: int) -> FloatArray:
    """(kinds, heroes, asides) click probabilities that depend on the pair."""
    rng = np.random.default_rng(seed)
    chance = np.full((KINDS, ACTIONS, ACTIONS), 0.05)
    for kind in chance:
        kind[np.arange(ACTIONS), rng.permutation(ACTIONS)] = rng.uniform(0.2, 0.6, ACTIONS)
    return chance


def sums(seed: int) -> FloatArray:
    """(kinds, heroes, asides) click probabilities to which each action adds its own part."""
    rng = np.random.default_rng(seed)
    parts = rng.uniform(0.0, 0.3, (2, KINDS, ACTIONS))
    return np.asarray(parts[0][:, :, None] + parts[1][:, None, :], dtype=np.float64)


def play(
    learner: Learner, chance: FloatArray, floor: float, rounds: int, seed: int
) -> tuple[float, float]:
    """Mean probability of a click over one pass, and µs of processor time a round."""
    rng = np.random.default_rng(1_000 + seed)
    earned = 0.0
    start = time.process_time()
    for _ in range(rounds):
        kind = int(rng.integers(KINDS))
        turn = learner.choose(kind, rng.random(2), floor)
        p = float(chance[kind, turn.hero, turn.aside])
        earned += p
        learner.learn(kind, turn, float(rng.random() < p))
    return earned / rounds, (time.process_time() - start) / rounds * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Two slots that go together.")
    parser.add_argument("--rounds", type=int, default=4_000, help="decisions of each pass")
    parser.add_argument("--seeds", type=int, default=5, help="worlds of each sort")
    given = parser.parse_args(arguments)
    sorts = (
        ("pairs matter", pairs, FLOOR),
        ("pairs matter, and somebody else chooses the hero", pairs, 1.0),
        ("parts add up", sums, FLOOR),
    )
    for title, world, floor in sorts:
        worlds = [world(seed) for seed in range(given.seeds)]
        by_hero = np.array([chance.max(axis=2) for chance in worlds])
        best = (by_hero if floor == 1.0 else by_hero.max(axis=2)).mean()
        print(f"\n{title}: {given.rounds} rounds, {given.seeds} worlds; the best is {best:.3f}")
        print(f"{'':28}{'reward':>8}{'±':>7}{'µs':>7}")
        for name, make in LEARNERS.items():
            runs = [play(make(), c, floor, given.rounds, seed) for seed, c in enumerate(worlds)]
            reward, spent = np.mean(runs, axis=0)
            spread = np.std([run[0] for run in runs], ddof=1)
            print(f"{name:28}{reward:8.3f}{spread:7.3f}{spent:7.0f}", flush=True)


if __name__ == "__main__":
    main()
