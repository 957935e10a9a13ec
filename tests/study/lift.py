"""The lift half of the study: what its intervals promise, in worlds whose truth is known.

An experiment is looked at sixty times while it grows, so that the last look tells coverage and all
looks the false alarms. Intervals at a fixed horizon are judged at the last look alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from attribution import Mean, Prior, Proportion, Quantile
from attribution.adaptive_lift import AdaptiveLog
from attribution.anytime import NormalMixture, quantile_ranks
from attribution.contrasts import Effect, Horizon, Rules, compare, compare_quantiles
from attribution.effects import TUNED_AT
from attribution.lift_metrics import Metric
from attribution.moments import Moments
from attribution.variant_means import from_moments
from tests.study.promises import ALPHA, LOOKS, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(slots=True)
class Tally:
    """What became of the intervals of one kind in a cell."""

    logs: int = 0
    answered: int = 0
    too_high: int = 0
    too_low: int = 0
    alarms: int = 0
    ratios: list[float] = field(default_factory=list)

    def add(self, found: Effect, truth: float, plain: Effect, *, alarmed: bool) -> None:
        """Count a log: its interval, that of a fixed horizon, and whether any look alarmed."""
        self.logs += 1
        self.alarms += alarmed
        if not np.isnan(found.low):
            self.answered += 1
            self.too_high += found.low > truth
            self.too_low += found.high < truth
            self.ratios.append((found.high - found.low) / (plain.high - plain.low))

    def row(self, cell: str, which: str, *, alarms: bool, least_answered: float = 0.99) -> Row:
        """A row of the table; ``alarms`` where there was no effect to find."""
        answered = max(self.answered, 1)
        return Row(
            cell,
            which,
            self.answered / self.logs,
            self.too_high / answered,
            self.too_low / answered,
            float(np.mean(self.ratios)) if self.ratios else np.nan,
            self.alarms / self.logs if alarms else np.nan,
            least_answered=least_answered,
        )


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
    answered: float = 0.99

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


def rules(horizon: Horizon) -> Rules:
    """The rules that `lift` has by default."""
    return Rules(ALPHA, horizon, NormalMixture(TUNED_AT), Prior())


# The normal mixture excludes at 3.03 standard errors or more.
LEAST_Z = 2.0
ALWAYS, FIXED = rules("always"), rules("fixed")


def judged(metric: Metric, both: Moments, asked: Rules) -> Effect:
    """What `lift` makes of the moments of base and variant, without its frames."""
    means = from_moments(metric, both, _PAIR, _NO_CHANCE, _ONE_STRATUM)
    return compare(means, 1, ("new", "base"), asked)


def suspicious(both: Moments) -> bool:
    """Whether the two means lie two standard errors apart, without which no sequence excludes."""
    variance = both.m2[:, 0, 0] / (both.n - 1) / both.n
    return bool((both.mean[1, 0] - both.mean[0, 0]) ** 2 >= LEAST_Z**2 * variance.sum())


def study(world: World, logs: int, seed: int) -> Iterator[Row]:
    """A growing experiment by moments, at every look and at a fixed horizon."""
    rng = np.random.default_rng(seed)
    always, fixed = Tally(), Tally()
    truth, metric = world.truth, world.metric
    for _ in range(logs):
        looks = world.looks(rng)
        both, alarmed = looks.only(_PAIR), False
        for look in range(1, LOOKS):
            both = both + looks.only(2 * look + _PAIR)
            if both.n.min() > 1 and suspicious(both):
                alarmed |= judged(metric, both, ALWAYS).p_value < ALPHA
        plain = judged(metric, both, FIXED)
        always.add(judged(metric, both, ALWAYS), truth, plain, alarmed=alarmed)
        fixed.add(plain, truth, plain, alarmed=False)
    null = world.effect == 1
    yield always.row(world.name, "always", alarms=null, least_answered=world.answered)
    yield fixed.row(world.name, "fixed", alarms=False)


WORLDS = (
    World("revenue of 2 %, σ 1.5, 5 % treated", 160_000, 0.05, 0.02, 1.5),
    World("revenue of 2 %, σ 2, 5 % treated", 240_000, 0.05, 0.02, 2.0),
    World("revenue of 2 %, σ 2, 5 % treated, capped", 240_000, 0.05, 0.02, 2.0, cap=50.0),
    World("revenue of 2 %, σ 1.5, 5 % treated, +20 %", 240_000, 0.05, 0.02, 1.5, effect=1.2),
    World("revenue of 2 %, σ 1.5, halves", 120_000, 0.5, 0.02, 1.5),
    World("conversion of 0.2 %, 5 % treated", 60_000, 0.05, 0.002, None),
    World("conversion of 5 %, halves", 60_000, 0.5, 0.05, None),
    World("conversion of 5 %, 5 % treated", 120_000, 0.05, 0.05, None),
)


def quantile_study(logs: int, seed: int) -> Iterator[Row]:
    """The 90th percentile of a lognormal amount, 5 % treated.

    Looks before the last only ask whether the two quantiles are held apart, which is what the
    p-value of `compare_quantiles` says with a hundredth of the work.
    """
    rng = np.random.default_rng(seed)
    metric = Quantile("y", quantile=0.9)
    always, fixed = Tally(), Tally()
    for _ in range(logs):
        new = rng.random(12_000) < 0.05
        y = rng.lognormal(0, 1.5, len(new))
        alarmed = any(
            apart(np.sort(y[:n][new[:n]]), np.sort(y[:n][~new[:n]]), metric.quantile)
            for n in np.linspace(0, len(new), LOOKS + 1).astype(int)[1:]
        )
        mine, base = np.sort(y[new]), np.sort(y[~new])
        plain = compare_quantiles(metric, mine, base, FIXED)
        found = compare_quantiles(metric, mine, base, ALWAYS)
        always.add(found, 0.0, plain, alarmed=alarmed)
        fixed.add(plain, 0.0, plain, alarmed=False)
    cell = "90th percentile, σ 1.5, 5 % treated"
    yield always.row(cell, "always", alarms=True)
    yield fixed.row(cell, "fixed", alarms=False)


ranks = lru_cache(maxsize=None)(quantile_ranks)


def apart(mine: FloatArray, base: FloatArray, quantile: float) -> bool:
    """Whether the intervals of two quantiles, each at half the level, do not meet."""
    ends = []
    for values in (mine, base):
        low, high = ranks(len(values), quantile, ALPHA / 2)
        if low < 1 or high > len(values):
            return False
        ends.append((values[low - 1], values[high - 1]))
    return bool(ends[0][0] > ends[1][1] or ends[0][1] < ends[1][0])


# Variants that a bandit gave out ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bandit:
    """Units given to the variant that looks best, but for a share; none is better than another.

    Each batch is drawn by what the ones before it brought. The second variant is compared with
    the first; ``amount`` draws values of n units.
    """

    variants: int
    units: int
    explore: float
    amount: Callable[[np.random.Generator, int], FloatArray]

    def log(self, rng: np.random.Generator) -> tuple[AdaptiveLog, FloatArray]:
        """The units in order of time, and their values."""
        k, size = self.variants, self.units // LOOKS
        total, seen = np.zeros(k), np.zeros(k)
        drawn, chances = np.empty(self.units, np.intp), np.empty((self.units, k))
        values = self.amount(rng, self.units)
        for batch in range(LOOKS):
            chance = np.full(k, self.explore / k)
            chance[int((total / np.maximum(seen, 1)).argmax())] += 1 - self.explore
            if batch == 0:
                chance = np.full(k, 1 / k)
            here = slice(batch * size, (batch + 1) * size)
            drawn[here] = rng.choice(k, size, p=chance)
            chances[here] = chance
            total += np.bincount(drawn[here], values[here], k)
            seen += np.bincount(drawn[here], minlength=k)
        names = tuple(f"v{number}" for number in range(k))
        return AdaptiveLog(names, drawn, chances, np.arange(self.units)), values


def adaptive_study(name: str, logs: int, seed: int) -> Iterator[Row]:
    """A bandit's variants, at every look and at a fixed horizon."""
    bandit, rng = BANDITS[name], np.random.default_rng(seed)
    always, fixed = Tally(), Tally()
    size = bandit.units // LOOKS
    for _ in range(logs):
        log, values = bandit.log(rng)
        alarmed = False
        terms = log.terms(values, 1)
        gain, weight = np.cumsum(terms.gain), np.cumsum(terms.weight)
        looks = np.arange(size, bandit.units + 1, size)
        off = gain / weight
        spent = (
            np.cumsum(terms.gain**2)
            - 2 * off * np.cumsum(terms.gain * terms.weight)
            + off**2 * np.cumsum(terms.weight**2)
        )
        # As `suspicious`; the floor under the variance only makes it larger.
        for n in looks[(gain**2 >= LEAST_Z**2 * spent)[looks - 1]]:
            seen = AdaptiveLog(log.names, log.variant[:n], log.chance[:n], log.order[:n])
            alarmed |= seen.effect(values[:n], 1, ALWAYS)[0].p_value < ALPHA
        found, *_ = log.effect(values, 1, ALWAYS)
        plain, *_ = log.effect(values, 1, FIXED)
        always.add(found, 0.0, plain, alarmed=alarmed)
        fixed.add(plain, 0.0, plain, alarmed=False)
    yield always.row(name, "always", alarms=True)
    yield fixed.row(name, "fixed", alarms=False)


def _revenue(rng: np.random.Generator, n: int) -> FloatArray:
    return (rng.random(n) < 0.3) * rng.lognormal(0, 1.5, n)


BANDITS: Mapping[str, Bandit] = {
    "bandit of 2 variants": Bandit(2, 3_000, 0.2, lambda rng, n: rng.normal(size=n)),
    "bandit of 5 variants": Bandit(5, 6_000, 0.25, lambda rng, n: rng.normal(size=n)),
    "bandit of 2 variants, conversion of 30 %": Bandit(
        2, 6_000, 0.2, lambda rng, n: (rng.random(n) < 0.3).astype(float)
    ),
    "bandit of 2 variants, revenue of 30 %, σ 1.5": Bandit(2, 6_000, 0.2, _revenue),
}


CELLS: Mapping[str, Callable[[int, int], Iterator[Row]]] = {
    **{world.name: partial(study, world) for world in WORLDS},
    "90th percentile, σ 1.5, 5 % treated": quantile_study,
    **{name: partial(adaptive_study, name) for name in BANDITS},
}


def rows(name: str, logs: int, seed: int) -> Iterator[Row]:
    """The rows of a cell."""
    yield from CELLS[name](logs, seed)
