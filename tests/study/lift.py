"""The lift half of the study: what its intervals promise, in worlds whose truth is known.

Each function simulates one cell and returns a `Row`; `rows` makes them all. An experiment is looked
at sixty times while it grows, so that the last look tells coverage and all looks the false alarms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution import Mean, Prior, Proportion, Quantile, lift
from attribution.anytime import NormalMixture
from attribution.contrasts import Effect, Horizon, Rules, compare
from attribution.effects import TUNED_AT
from attribution.lift_metrics import Metric
from attribution.moments import Moments
from attribution.variant_means import from_moments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

LOOKS = 60
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A cell of the study's table; shares are of the logs that were answered at the last look.

    ``width_ratio`` is the mean width against the plain fixed-horizon interval of the same data;
    ``false_alarms`` is the share of logs without an effect that alarmed at any look.
    """

    cell: str
    logs: int
    coverage: float
    left_miss: float
    right_miss: float
    answered: float
    width_ratio: float
    false_alarms: float


@dataclass(frozen=True, slots=True)
class World:
    """Units that show something at a rate, and then a lognormal amount.

    ``amount_sigma`` is the logarithm's standard deviation; None stands for an amount of 1. ``cap``
    winsorises at a limit that was known beforehand; ``effect`` multiplies a variant's rate.
    """

    name: str
    units: int
    share: float
    rate: float
    amount_sigma: float | None
    cap: float = np.inf
    effect: float = 1.0

    def amounts(self, rng: np.random.Generator, n: int) -> FloatArray:
        if self.amount_sigma is None:
            return np.ones(n)
        return np.minimum(rng.lognormal(0, self.amount_sigma, n), self.cap)

    @property
    def truth(self) -> float:
        """The difference of means: the amount's mean, by quadrature, times that of the rates."""
        return (self.effect - 1) * self.rate * self.mean_amount

    @property
    def mean_amount(self) -> float:
        if self.amount_sigma is None:
            return 1.0
        # Quantiles at the midpoints of 2 million equal steps: exact to 1e-5 of the mean.
        from scipy.stats import lognorm  # noqa: PLC0415  only the study needs it

        steps = (np.arange(2_000_000) + 0.5) / 2_000_000
        return float(np.minimum(lognorm.ppf(steps, self.amount_sigma), self.cap).mean())

    @property
    def metric(self) -> Metric:
        return Proportion("y") if self.amount_sigma is None else Mean("y")

    def looks(self, rng: np.random.Generator) -> Moments:
        """Moments of the base (even cells) and the variant (odd ones), look by look."""
        per_look = self.units // LOOKS
        new = rng.binomial(per_look, self.share, LOOKS)
        sizes = np.column_stack([per_look - new, new]).ravel()
        rates = np.tile([self.rate, self.rate * self.effect], LOOKS)
        shown = rng.binomial(sizes, rates)
        values = self.amounts(rng, int(shown.sum()))
        cell = np.repeat(np.arange(2 * LOOKS), shown)
        some = Moments.of(values[:, None], cell, 2 * LOOKS)
        idle = sizes - shown
        nothing = np.zeros((2 * LOOKS, 1))
        none = Moments(idle, nothing, nothing[:, :, None], np.zeros_like(idle))
        return some + none


_PAIR: IntArray = np.arange(2)
_NO_CHANCE = np.full(2, np.nan)
_ONE_STRATUM: IntArray = np.zeros(2, np.intp)


def judged(metric: Metric, both: Moments, horizon: Horizon) -> Effect:
    """What `lift` makes of the moments of base and variant, without its frames."""
    rules = Rules(ALPHA, horizon, NormalMixture(TUNED_AT), Prior())
    means = from_moments(metric, both, _PAIR, _NO_CHANCE, _ONE_STRATUM)
    return compare(means, 1, ("new", "base"), rules)


def study(world: World, logs: int, seed: int) -> Row:
    """Coverage at the last look, and false alarms at any, of the always-valid interval."""
    rng = np.random.default_rng(seed)
    missed, answered, alarms, ratios = np.zeros(2), 0, 0, []
    truth, metric = world.truth, world.metric
    for _ in range(logs):
        looks = world.looks(rng)
        both, alarmed = looks.only(_PAIR), False
        for look in range(1, LOOKS):
            both = both + looks.only(2 * look + _PAIR)
            if both.n.min() > 1:
                alarmed |= judged(metric, both, "always").p_value < ALPHA
        last = judged(metric, both, "always")
        alarms += alarmed
        if not np.isnan(last.low):
            answered += 1
            missed += (last.high < truth, last.low > truth)
            plain = judged(metric, both, "fixed")
            ratios.append((last.high - last.low) / (plain.high - plain.low))
    left, right = missed / max(answered, 1)
    return Row(
        world.name, logs, 1 - left - right, left, right, answered / logs,
        float(np.mean(ratios)) if ratios else np.nan,
        alarms / logs if world.effect == 1 else np.nan,
    )  # fmt: skip


WORLDS = (
    World("revenue of 2 %, σ 1.5, 5 % treated", 120_000, 0.05, 0.02, 1.5),
    World("revenue of 2 %, σ 2, 5 % treated", 240_000, 0.05, 0.02, 2.0),
    World("revenue of 2 %, σ 2, 5 % treated, capped", 240_000, 0.05, 0.02, 2.0, cap=50.0),
    World("revenue of 2 %, σ 1.5, 5 % treated, +20 %", 240_000, 0.05, 0.02, 1.5, effect=1.2),
    World("revenue of 2 %, σ 1.5, halves", 120_000, 0.5, 0.02, 1.5),
    World("rare conversion of 0.2 %, 5 % treated", 60_000, 0.05, 0.002, None),
    World("conversion of 5 %, halves", 60_000, 0.5, 0.05, None),
    World("conversion of 5 %, 5 % treated", 120_000, 0.05, 0.05, None),
)


def quantile_study(logs: int, seed: int) -> Row:
    """The 90th percentile of a lognormal amount, 5 % treated, at ten looks."""
    rng = np.random.default_rng(seed)
    metric = Quantile("y", quantile=0.9)
    missed, answered, alarms, ratios = np.zeros(2), 0, 0, []
    for _ in range(logs):
        new = rng.random(20_000) < 0.05
        frame = pd.DataFrame({"variant": np.where(new, "new", "base")})
        frame["y"] = rng.lognormal(0, 1.5, 20_000)
        found = [
            lift(frame.iloc[:n], variant="variant", baseline="base", metrics=[metric]).results[0]
            for n in range(2_000, 20_001, 2_000)
        ]
        last = found[-1]
        if not np.isnan(last.low):
            answered += 1
            missed += (last.high < 0, last.low > 0)
            [plain] = lift(
                frame, variant="variant", baseline="base", metrics=[metric], horizon="fixed"
            ).results
            ratios.append((last.high - last.low) / (plain.high - plain.low))
        alarms += any(each.p_value < ALPHA for each in found)
    left, right = missed / max(answered, 1)
    return Row(
        "90th percentile, σ 1.5, 5 % treated", logs, 1 - left - right, left, right,
        answered / logs, float(np.mean(ratios)), alarms / logs,
    )  # fmt: skip


def rows(logs: int = 4_000, seed: int = 2026) -> Iterator[Row]:
    """Every lift cell of the study."""
    for number, world in enumerate(WORLDS):
        yield study(world, logs, seed + number)
    yield quantile_study(max(logs // 10, 1), seed)
