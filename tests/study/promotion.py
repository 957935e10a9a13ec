"""How often the promotion gate errs, and how often it finds what is there.

``python -m tests.study.promotion`` prints the figures that docs/promotion.md shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from attribution import EvaluationLog
from engine.gate import Judgement, judge, level_of
from engine.workspace import Guardrail

FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Slot:
    """Actions with their chance of a reward of 1; the incumbent is uniform, or learns.

    ``guarded`` is the mean of another metric in [0, 1]. The candidate takes the last action.
    """

    means: tuple[float, ...]
    guarded: tuple[float, ...] = ()
    direction: Literal["up", "down"] = "up"
    margin: float = 0.05
    adaptive: bool = False

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """What the gate holds."""
        return (Guardrail("guard", self.direction, self.margin),) if self.guarded else ()


@dataclass(frozen=True, slots=True)
class Chances:
    """Of some sequences of attempts, how many ended with a promotion."""

    sequences: int
    promoted: int


def sequence(
    slot: Slot,
    rng: np.random.Generator,
    *,
    attempts: int,
    rows: int,
    alpha: float,
    margin: float = 0.0,
) -> list[Judgement]:
    """Attempts by fresh rows each, until one is a pass."""
    found: list[Judgement] = []
    for attempt in range(1, attempts + 1):
        pmf, action = _drawn(slot, rng, rows)
        mean = np.array(slot.means)
        reward = (rng.random(rows) < mean[action]).astype(np.float64)
        k = len(slot.means)
        candidate = np.full((rows, k), FLOOR / k)
        candidate[:, -1] += 1 - FLOOR
        guarded = {}
        if slot.guarded:
            values = (rng.random(rows) < np.array(slot.guarded)[action]).astype(np.float64)
            guarded["guard"] = (_log(values, action, pmf), candidate)
        found.append(
            judge(
                _log(reward, action, pmf), candidate, guarded, slot.guardrails,
                margin=margin, level=level_of(alpha, attempt),
            )
        )  # fmt: skip
        if found[-1].verdict == "promoted":
            break
    return found


def chances(
    slot: Slot, *, sequences: int, attempts: int, rows: int, alpha: float, seed: int = 1
) -> Chances:
    """How many sequences, each with a seed of its own, ended with a promotion."""
    promoted = 0
    for number in range(sequences):
        rng = np.random.default_rng([seed, number])
        last = sequence(slot, rng, attempts=attempts, rows=rows, alpha=alpha)[-1]
        promoted += last.verdict == "promoted"
    return Chances(sequences, promoted)


def _drawn(
    slot: Slot, rng: np.random.Generator, rows: int
) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.intp]]:
    """(n, k) pmfs and (n,) actions of the incumbent.

    An adaptive one is greedy on noisy means of its own, changed ten times, behind a floor of .3.
    """
    k = len(slot.means)
    pmf = np.full((rows, k), 1 / k)
    if slot.adaptive:
        for piece in np.array_split(np.arange(rows), 10):
            favourite = int(np.argmax(np.array(slot.means) + rng.normal(0, 0.05, k)))
            pmf[piece] = 0.3 / k
            pmf[piece, favourite] += 0.7
    edges = np.cumsum(pmf, axis=1)
    action = (rng.random(rows)[:, None] >= edges).sum(axis=1).clip(max=k - 1)
    return pmf, action.astype(np.intp)


def _log(
    reward: np.typing.NDArray[np.float64],
    action: np.typing.NDArray[np.intp],
    pmf: np.typing.NDArray[np.float64],
) -> EvaluationLog:
    n, k = pmf.shape
    return EvaluationLog(
        actions=tuple(f"a{number}" for number in range(k)),
        action=action,
        reward=reward,
        propensity=pmf[np.arange(n), action],
        pmf=pmf,
        adaptive=True,
        reward_range=(0.0, 1.0),
        max_weight=1 / float(pmf.min()),
    )


def main() -> None:
    """Print the study's figures."""
    equal, better = (0.5, 0.5, 0.5), (0.475, 0.475, 0.55)
    cases = (
        ("candidate equal, incumbent uniform", Slot(equal), 1_000, 5, 1_000),
        ("candidate equal, incumbent learns", Slot(equal, adaptive=True), 1_000, 5, 1_000),
        ("candidate a tenth better", Slot(better), 1_000, 3, 4_000),
        ("… and its guardrail worse by .1", Slot(better, (0.5, 0.5, 0.4)), 1_000, 3, 4_000),
    )
    print("| world | sequences | attempts | rows each | promoted |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, slot, sequences, attempts, rows in cases:
        found = chances(slot, sequences=sequences, attempts=attempts, rows=rows, alpha=0.05)
        print(f"| {name} | {sequences:,} | {attempts} | {rows:,} | {found.promoted} |", flush=True)


if __name__ == "__main__":
    main()
