"""Continuous actions: a dose, a price, a bid; weights are kernels around what the target does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError, refuse_rows
from attribution.log import check_range

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousLog:
    """n logged choices of a number.

    Parameters
    ----------
    action
        (n,) what was drawn.
    reward
        (n,) finite.
    density
        (n,) > 0: the density with which ``action`` was drawn, per unit of the action.
    unit
        (n,) codes 0…m−1 of the randomisation unit, or None where each row is a unit.
    reward_range
        The smallest and largest reward that are possible, known beforehand.
    """

    action: FloatArray
    reward: FloatArray
    density: FloatArray
    unit: IntArray | None = None
    reward_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        n = len(self.action)
        if n < 2:
            raise AttributionError(f"the log holds {n} rows. Give it at least two units.")
        for name in ("action", "reward", "density"):
            value = getattr(self, name)
            if value.shape != (n,):
                raise AttributionError(
                    f"`{name}` has shape {value.shape} and `action` ({n},). They must agree."
                )
            refuse_rows(~np.isfinite(value), name, "is not a finite number", "Mend it.", value)
        refuse_rows(
            self.density <= 0,
            "density",
            "is not above 0",
            "Log the density with which the action was drawn.",
            self.density,
        )
        if self.reward_range is not None:
            check_range(self.reward_range, self.reward)
        if self.unit is not None and (
            len(self.unit) != n
            or self.unit.min() < 0
            or not np.bincount(self.unit).all()
            or self.unit.max() < 1
        ):
            raise AttributionError(
                f"`unit` must hold {n:,} codes 0…m−1 of two units or more, as pandas.factorize "
                "gives them."
            )

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.action)


def kernel_weights(log: ContinuousLog, target: FloatArray, bandwidth: float) -> FloatArray:
    """K((a_i − π(x_i)) / h) / (h p_i) with Epanechnikov's kernel K(u) = ¾ (1 − u²)⁺, (n,).

    The estimates made of them are of a target that draws around π(x) as K does; the bias for π
    itself falls with h².

    References
    ----------
    Kallus & Zhou (2018), Policy Evaluation and Optimization with Continuous Treatments, AISTATS.
    """
    u = (log.action - target) / bandwidth
    weight: FloatArray = 0.75 * np.maximum(1 - u * u, 0.0) / (bandwidth * log.density)
    return weight


def bandwidths(log: ContinuousLog) -> tuple[float, ...]:
    """The grid from which SLOPE takes a bandwidth: from the least bias to the most.

    Between 1/16 and 2 standard deviations of the logged actions.
    """
    spread = float(log.action.std()) or 1.0
    return tuple(spread * 2.0**power for power in range(-4, 2))


def check_target(name: str, target: npt.ArrayLike, log: ContinuousLog) -> FloatArray:
    """The target's action in each row, (n,)."""
    value = np.asarray(target, dtype=np.float64)
    if value.shape != (log.n,):
        raise AttributionError(
            f"`targets.{name}` has shape {value.shape}. It must be ({log.n},): what the target "
            "does in each row."
        )
    refuse_rows(~np.isfinite(value), f"targets.{name}", "is not a finite number", "Mend it.", value)
    return value


def check_expected(q_hat: npt.ArrayLike | None, log: ContinuousLog, target: str) -> FloatArray:
    """(n, 2) expected reward at the target's action and at the logged one."""
    value = np.asarray(math.nan if q_hat is None else q_hat, dtype=np.float64)
    if value.shape != (log.n, 2):
        raise AttributionError(
            f"`q_hat.{target}` has shape {value.shape}. 'kernel_dr' needs ({log.n}, 2): the "
            "expected reward at the target's action and at the logged one."
        )
    refuse_rows(~np.isfinite(value.sum(axis=1)), f"q_hat.{target}", "is not finite", "Mend it.")
    return value


CONTINUOUS_ESTIMATORS = ("kernel_ips", "kernel_snips", "kernel_dr")
