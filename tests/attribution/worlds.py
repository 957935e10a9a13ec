"""Simulated logs whose truth is known: the value of a target, by exact expectation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from attribution import EvaluationLog

FloatArray = npt.NDArray[np.float64]


def shared_data(name: str) -> Path:
    """Path of a shared data file, or a skipped test where it is absent."""
    default = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("EVENHAND_SHARED_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set EVENHAND_SHARED_DATA to the folder of shared data")
    return path


@dataclass(frozen=True)
class World:
    """Ten actions with fixed reward probabilities, a logging pmf and a target pmf."""

    reward: FloatArray
    logging: FloatArray
    target: FloatArray

    @property
    def value(self) -> float:
        return float(self.target @ self.reward)

    @property
    def logging_value(self) -> float:
        return float(self.logging @ self.reward)

    @property
    def max_weight(self) -> float:
        return float((self.target / self.logging).max())

    def log(
        self,
        rng: np.random.Generator,
        rows: npt.NDArray[np.intp],
        *,
        taste: float = 0.0,
        sticky: bool = False,
        declared: bool = True,
    ) -> EvaluationLog:
        """A log with ``rows[j]`` rows of unit j.

        ``taste`` shifts all rewards of a unit up or down alike, so that a unit's rows depend on
        each other; ``sticky`` gives all rows of a unit the action of its first.
        """
        # Beyond these bounds the draws would be clipped, and `value` not be the truth.
        assert (self.reward - taste >= 0).all(), self.reward
        assert (self.reward + taste <= 1).all(), self.reward
        unit = np.repeat(np.arange(len(rows)), rows)
        action = rng.choice(len(self.reward), p=self.logging, size=len(unit))
        if sticky:
            action = action[np.concatenate([[0], np.cumsum(rows)[:-1]])][unit]
        shift = taste * rng.choice([-1.0, 1.0], size=len(rows))
        reward = (rng.random(len(unit)) < self.reward[action] + shift[unit]).astype(float)
        return EvaluationLog(
            actions=tuple(range(len(self.reward))),
            action=action.astype(np.intp),
            reward=reward,
            propensity=self.logging[action],
            unit=None if (rows == 1).all() else unit.astype(np.intp),
            reward_range=(0.0, 1.0) if declared else None,
            max_weight=self.max_weight * 1.5 if declared else np.inf,
        )

    def target_for(self, log: EvaluationLog) -> FloatArray:
        return np.broadcast_to(self.target, (log.n, log.k))


def mild(level: float) -> World:
    """Weights up to about three, rewards around ``level``."""
    k = 10
    reward = level * np.linspace(0.7, 1.3, k)
    logging = np.linspace(1, 2, k)
    target = np.linspace(3, 1, k) ** 1.5
    return World(reward, logging / logging.sum(), target / target.sum())


def heavy(level: float) -> World:
    """The target's favourite is logged once in 42: an effective sample of about 2.4 %."""
    k = 10
    reward = level * np.linspace(1.1, 0.9, k)
    logging = np.full(k, (1 - 0.024) / (k - 1))
    logging[0] = 0.024
    target = np.full(k, 0.01 / (k - 1))
    target[0] = 0.99
    return World(reward, logging, target)


def at_least(hits: int, trials: int, promised: float, *, doubt: float = 1e-4) -> bool:
    """Whether ``hits`` of ``trials`` are as many as a rate of ``promised`` or more would give."""
    return bool(binom.cdf(hits, trials, promised) > doubt)
