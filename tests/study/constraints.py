"""How often the conservative guarantee breaks, and what it costs.

``python -m tests.study.constraints`` prints the figures that docs/constraints.md shows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields

import numpy as np

from policies.constraints import Guarantee, Ledger, note, surplus

FLOOR = 0.02
EVERY = 10
"""Decisions between two snapshots."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Of some runs: how many broke the guarantee, and the mean reward of a decision."""

    broken: int
    mean: float
    risks: float


def kept(
    means: tuple[float, ...],
    *,
    runs: int,
    decisions: int,
    delay: int = 50,
    guarded: bool = True,
    promise: float = 0.1,
    seed: int = 1,
) -> Kept:
    """Runs of UCB with a floor on Bernoulli rewards of these means; the first is the default's.

    Outcomes come ``delay`` decisions later, and snapshots every tenth. ``promise`` is the α that
    the guard works by; what counts as broken is that of .1.
    """
    rng = np.random.default_rng(seed)
    k, every = len(means), np.arange(runs)
    mean = np.array(means)
    guarantee = Guarantee("a", promise, 0.05, 0.1, 0.0, 1.0)
    ledger = ledger_of(runs)
    counts, sums = np.ones((runs, k)), np.full((runs, k), 0.5)
    allowance, risks, ahead = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    broken = np.zeros(runs, dtype=bool)
    total = 0.0
    waiting: deque[tuple[np.ndarray, ...]] = deque()
    for step in range(decisions):
        best = np.argmax(sums / counts + np.sqrt(0.5 * np.log(step + 2) / counts), axis=1)
        pmf = np.zeros((runs, k))
        pmf[every, best] = 1.0
        if guarded:
            pmf *= 1 - guarantee.share
            pmf[:, 0] += guarantee.share
        pmf = (1 - FLOOR) * pmf + FLOOR / k
        if guarded:
            pmf[risks + 1 > allowance] = np.eye(k)[0]
        action = (rng.random(runs)[:, None] >= np.cumsum(pmf, axis=1)).sum(axis=1).clip(max=k - 1)
        reward = (rng.random(runs) < mean[action]).astype(np.float64)
        certain = pmf[:, 0] == 1.0
        risks += ~certain
        ahead += mean[action] - 0.9 * mean[0]
        broken |= ahead < -1e-9
        total += float(mean[action].sum())
        waiting.append((action, reward, np.where(action == 0, pmf[:, 0], np.inf), certain))
        if len(waiting) > delay:
            action, reward, propensity, certain = waiting.popleft()
            counts[every, action] += 1
            sums[every, action] += reward
            note(guarantee, ledger, reward, propensity, certain)
            if step % EVERY == 0:
                left = surplus(guarantee, ledger, (1 - FLOOR) * guarantee.share)
                allowance = ledger.risks + np.maximum(0, np.floor(left / guarantee.worst))
    return Kept(int(broken.sum()), total / runs / decisions, float(risks.mean()) / decisions)


def ledger_of(runs: int) -> Ledger:
    """An empty ledger of many runs at once."""
    ledger = Ledger()
    for field in fields(Ledger):
        if field.name != "excused":
            setattr(ledger, field.name, np.full(runs, field.default, dtype=np.float64))
    return ledger


def main() -> None:
    """Print the study's figures."""
    print(
        "| means, the default's first | runs | broken unguarded | broken guarded "
        "| reward unguarded | guarded | share |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for means in ((0.5, 0.8, 0.3, 0.4), (0.5, 0.6, 0.3, 0.4), (0.5, 0.2, 0.3, 0.4)):
        found = kept(means, runs=1_000, decisions=10_000)
        free = kept(means, runs=1_000, decisions=10_000, guarded=False)
        told = f"{free.broken:,} | {found.broken} | {free.mean:.3f} | {found.mean:.3f}"
        print(f"| {means} | 1,000 | {told} | {found.mean / free.mean:.2f} |", flush=True)


if __name__ == "__main__":
    main()
