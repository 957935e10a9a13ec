"""Lift where a bandit gave out the variants: by each unit's logged probabilities, in order of time.

A bandit sends fewer units to what looked worse, and looks less at what was unlucky once: plain
means keep that bad luck, and their intervals cover less than they promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri

from attribution.anytime import NormalMixture
from attribution.contrasts import LEAST_AWAY, Effect, Horizon, Rules
from attribution.errors import AttributionError, refuse_rows
from attribution.log import column, numbers
from attribution.report import SampleRatio
from attribution.rollups import LEAST_CHANCE, UNLIKELY, assigned_variants
from attribution.sample_ratio import SRM_ALPHA

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

# With less, the normal limit has not been reached.
LEAST_UNITS = 50


@dataclass(frozen=True, slots=True, eq=False)
class AdaptiveLog:
    """Units in the order of their assignment, each with the probability of every variant.

    Parameters
    ----------
    names
        The k variants, the baseline first.
    variant
        (n,) the variant that each unit got.
    chance
        (n, k) the probabilities with which it was drawn, rows summing to one.
    order
        (n,) rows of the frame in order of time.
    """

    names: tuple[str, ...]
    variant: IntArray
    chance: FloatArray
    order: IntArray

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        variant: str,
        baseline: str,
        probability: Mapping[str, str],
        time: str,
    ) -> AdaptiveLog:
        """Read a frame; ``probability`` names each variant's column.

        Raises
        ------
        AttributionError
            If a column is missing, a variant has none, probabilities do not sum to one, or a
            unit got what had no chance.
        """
        assigned = assigned_variants(table, variant)
        if baseline not in probability:
            raise AttributionError(
                f"`baseline` is {baseline!r}, of which `probability` names no column. "
                f"It has: {', '.join(sorted(probability))}."
            )
        names = (baseline, *sorted(set(probability) - {baseline}))
        if len(names) < 2:
            raise AttributionError("`probability` names one variant. Lift needs a second.")
        refuse_rows(
            ~assigned.isin(names).to_numpy(),
            variant,
            "has no column of its probability",
            "Name a column in `probability` for every variant.",
            assigned.to_numpy(),
        )
        chance = np.column_stack([numbers(table, probability[n], "probability") for n in names])
        sums = chance.sum(axis=1)
        refuse_rows(
            ~((chance >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-6)),
            "probability",
            "is negative, or does not sum to one,",
            "Log the probability of every variant at the draw.",
            sums,
        )
        code = np.array([names.index(name) for name in assigned], dtype=np.intp)
        got = chance[np.arange(len(code)), code]
        refuse_rows(
            got <= 0, "probability", "is zero for what was drawn", "Log what was drawn from.", got
        )
        said = f"is below {LEAST_CHANCE:g} for what was drawn"
        refuse_rows(got < LEAST_CHANCE, "probability", said, UNLIKELY, got)
        when = column(table, time, "time")
        refuse_rows(when.isna().to_numpy(), time, "is missing", "Give every unit its time.")
        order = np.argsort(when.to_numpy(), kind="stable").astype(np.intp)
        return cls(names, code, chance, order)

    def sample_ratio(self) -> SampleRatio:
        """Whether units got variants as often as drawn: Σ (1{v} − p_v), at every look.

        The least p-value over variants, times their number; of two, both say the same.
        """
        least = 1.0
        mixture = NormalMixture(1_000.0)
        for v in range(len(self.names)):
            p = self.chance[:, v]
            information = float((p * (1 - p)).sum())
            if information == 0:
                continue
            off = float(((self.variant == v) - p).sum())
            # Four times p (1 − p) is one where both are halves: the clock is then units.
            least = min(least, mixture.p_value(off * off / information, 4 * information))
        tests = len(self.names) if len(self.names) > 2 else 1
        p_value = min(least * tests, 1.0)
        return SampleRatio(p_value, "failed" if p_value < SRM_ALPHA else "ok")

    def effect(
        self, values: FloatArray, v: int, rules: Rules, resting: float = 0.0
    ) -> tuple[Effect, float, float]:
        """The effect of variant ``v``, and the two adaptive means, from values (n,) of the frame.

            Γ_t(v) = m_{t−1}(v) + 1{A_t = v} / p_t(v) (y_t − m_{t−1}(v))
            effect = Σ h_t (Γ_t(v) − Γ_t(0)) / Σ h_t,   h_t = √(p_t(v) p_t(0))

        where m_{t−1} are running means of earlier units, so that each term's expectation given
        the past is the effect; the variance is V_t = Σ h² (Γ(v) − Γ(0) − effect)², over (Σ h)².
        Units that could not have got one of the two weigh nothing.

        At a fixed horizon the limit is normal. Σ h (Γ(v) − Γ(0) − effect) is a martingale, so that
        the normal mixture holds it at every look with V_t for its clock, in units of the variance
        that the first terms showed.

        References
        ----------
        Hadad, Hirshberg, Zhan, Wager & Athey (2021), Confidence Intervals for Policy Evaluation in
        Adaptive Experiments, PNAS 118(15), arXiv 1911.02768; Bibaut et al. (2021), 2106.00418.
        Waudby-Smith et al. (2024), as in `anytime.NormalMixture`, section 2.5 for martingales.
        """
        terms = self.terms(values, v)
        means = [terms.mean(code) for code in (0, 1)]
        away = terms.away(resting)
        if (why := self._too_few(terms, away, v, rules.horizon)) is not None:
            return Effect(math.nan, why_not=why), math.nan, math.nan
        gain, weight = terms.gain, terms.weight
        if not weight.any():
            why = "no unit could have got either variant"
            return Effect(math.nan, why_not=why), means[0], means[1]
        difference = float(gain.sum() / weight.sum())
        sparse = 2 * int(_shown(terms.y, resting).sum()) < len(terms.y)
        spent = terms.variance(len(gain), pooled=rules.horizon == "always" or sparse)
        if spent == 0:
            return Effect(difference, why_not="nothing varies"), means[0], means[1]
        se = math.sqrt(spent) / float(weight.sum())
        z = difference / se
        if rules.horizon == "fixed":
            half = float(ndtri(1 - rules.alpha / 2)) * se
            p_value, interval = 2 * float(ndtr(-abs(z))), "adaptive"
        else:
            began = int((away.min(axis=0) >= LEAST_AWAY["always"]).argmax()) + 1
            # Where spreads stay what they are it grows by one with each two units that either
            # variant was to get, whatever the probabilities. Its measure is fixed once both have
            # shown enough, so that later units cannot set their own clock.
            first = terms.variance(began, pooled=True) / (0.5 * float(terms.chances[:began].sum()))
            clock = spent / first
            half = rules.mixture.widening(clock, rules.alpha) * se
            p_value, interval = rules.mixture.p_value(z * z, clock), "adaptive_sequence"
        found = Effect(
            difference,
            difference - half,
            difference + half,
            p_value=p_value,
            interval=interval,
            always_valid=rules.horizon == "always",
        )
        return found, means[0], means[1]

    def terms(self, values: FloatArray, v: int) -> Terms:
        """What the effect of variant ``v`` is made of, from values (n,) of the frame."""
        order = self.order[~np.isnan(values[self.order])]
        y, drawn = values[order], self.variant[order]
        chances = self.chance[order][:, [v, 0]].T
        mine = np.array([drawn == code for code in (v, 0)])
        scores = np.array([_scores(y, got, p) for got, p in zip(mine, chances, strict=True)])
        return Terms(scores, np.sqrt(chances.prod(axis=0)), chances, y, mine)

    def _too_few(self, terms: Terms, away: IntArray, v: int, horizon: Horizon) -> str | None:
        """Why a variant's units do not tell their spread yet, if they do not."""
        for code, mine, seen in zip((v, 0), terms.mine, away, strict=True):
            count, name = int(mine.sum()), self.names[code]
            if count < LEAST_UNITS:
                return f"{name!r} has only {count} units; {LEAST_UNITS} are needed"
            least = LEAST_AWAY[horizon]
            if seen[-1] < least:
                return f"{name!r} has only {seen[-1]} values off the usual one; {least} are needed"
        return None


def _scores(y: FloatArray, mine: BoolArray, p: FloatArray) -> FloatArray:
    """Γ_t of one variant, (n,): the mean of its earlier units, put right by what was drawn."""
    total = np.cumsum(y * mine) - y * mine
    seen: IntArray = np.cumsum(mine) - mine
    earlier = np.divide(total, seen, out=np.zeros_like(y), where=seen > 0)
    inverse = np.divide(mine, p, out=np.zeros_like(y), where=p > 0)
    scores: FloatArray = earlier + inverse * (y - earlier)
    return scores


def _shown(y: FloatArray, resting: float) -> BoolArray:
    """(n,) which units show something: values off the resting one, of zeros and ones the rarer."""
    away: BoolArray = y != resting
    binary = bool(((y == 0) | (y == 1)).all())
    return ~away if binary and 2 * away.sum() > len(y) else away


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What an effect and its variance are made of, unit by unit in order of time.

    Parameters
    ----------
    scores
        (2, n) Γ of the variant and of the baseline; ``chances`` (2, n) the probabilities of the
        two, ``mine`` (2, n) which units got them.
    weight
        (n,) h.
    y
        (n,) the units' values.
    """

    scores: FloatArray
    weight: FloatArray
    chances: FloatArray
    y: FloatArray
    mine: BoolArray

    @property
    def gain(self) -> FloatArray:
        """(n,) h (Γ(v) − Γ(0))."""
        found: FloatArray = self.weight * (self.scores[0] - self.scores[1])
        return found

    def mean(self, code: int) -> float:
        """The adaptive mean of the variant (0) or the baseline (1), weighted by √p."""
        root = np.sqrt(self.chances[code])
        return float(root @ self.scores[code] / root.sum()) if root.any() else math.nan

    def away(self, resting: float) -> IntArray:
        """(2, n) how many units of each had shown something by then."""
        found: IntArray = np.cumsum(self.mine & _shown(self.y, resting), axis=1)
        return found

    def variance(self, n: int, *, pooled: bool) -> float:
        """V after n units; ``pooled``, no less than with the spread of both variants' units.

        As h² Var(Γ(v) − Γ(0)) = p(0) Var y(v) + p(v) Var y(0), one spread σ² gives σ² Σ (p(v) +
        p(0)). A variant that got few units and has not drawn from the tail yet is low in mean and
        in spread at once (`contrasts`).
        """
        gain, weight = self.gain[:n], self.weight[:n]
        own = float(((gain - gain.sum() / weight.sum() * weight) ** 2).sum())
        if not pooled:
            return own
        squares, count = 0.0, 0
        for mine in self.mine[:, :n]:
            values = self.y[:n][mine]
            squares += float(((values - values.mean()) ** 2).sum())
            count += len(values)
        return max(own, squares / count * float(self.chances[:, :n].sum()))


def refuse_options(given: Sequence[tuple[str, object]]) -> None:
    """Refuse options that a bandit's log does not allow."""
    for name, value in given:
        if value is not None:
            raise AttributionError(
                f"`{name}` is not for variants that a bandit gave out (`probability` names a "
                "column for each). Leave it out."
            )
