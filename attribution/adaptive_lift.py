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
from attribution.contrasts import Effect
from attribution.errors import AttributionError, refuse_rows
from attribution.log import column, numbers
from attribution.report import SampleRatio
from attribution.rollups import assigned_variants
from attribution.sample_ratio import SRM_ALPHA

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

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
        when = column(table, time, "time")
        refuse_rows(when.isna().to_numpy(), time, "is missing", "Give every unit its time.")
        order = np.argsort(when.to_numpy(), kind="stable").astype(np.intp)
        return cls(names, code, chance, order)

    def sample_ratio(self) -> SampleRatio:
        """Whether units got variants as often as drawn: Σ (1{v} − p_v), at every look.

        The least p-value over variants, times their number less one.
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
        p_value = min(least * (len(self.names) - 1), 1.0)
        return SampleRatio(p_value, "failed" if p_value < SRM_ALPHA else "ok")

    def effect(self, values: FloatArray, v: int, alpha: float) -> tuple[Effect, float, float]:
        """The effect of variant ``v``, and the two adaptive means, from values (n,) of the frame.

            Γ_t(v) = m_{t−1}(v) + 1{A_t = v} / p_t(v) (y_t − m_{t−1}(v))
            effect = Σ h_t (Γ_t(v) − Γ_t(0)) / Σ h_t,   h_t = √(p_t(v) p_t(0))

        where m_{t−1} are running means of earlier units, so that each term's expectation given
        the past is the effect; the variance is Σ h² (Γ(v) − Γ(0) − effect)² / (Σ h)². It holds
        at a fixed horizon. Units that could not have got one of the two weigh nothing.

        References
        ----------
        Hadad, Hirshberg, Zhan, Wager & Athey (2021), Confidence Intervals for Policy Evaluation in
        Adaptive Experiments, PNAS 118(15), arXiv 1911.02768; Bibaut et al. (2021), 2106.00418.
        """
        order = self.order[~np.isnan(values[self.order])]
        y = values[order]
        scores, means = [], []
        for code in (v, 0):
            mine = self.variant[order] == code
            p = self.chance[order, code]
            total, seen = np.cumsum(y * mine) - y * mine, np.cumsum(mine) - mine
            earlier = np.divide(total, seen, out=np.zeros_like(y), where=seen > 0)
            inverse = np.divide(mine, p, out=np.zeros_like(y), where=p > 0)
            scores.append(earlier + inverse * (y - earlier))
            root = np.sqrt(p)
            means.append(float(root @ scores[-1] / root.sum()))
            if mine.sum() < LEAST_UNITS:
                why = f"{self.names[code]!r} has only {mine.sum()} units; {LEAST_UNITS} are needed"
                return Effect(math.nan, why_not=why), math.nan, math.nan
        gain = scores[0] - scores[1]
        weight = np.sqrt(self.chance[order, v] * self.chance[order, 0])
        if not weight.any():
            why = "no unit could have got either variant"
            return Effect(math.nan, why_not=why), means[0], means[1]
        difference = float(weight @ gain / weight.sum())
        se = math.sqrt(float(weight**2 @ (gain - difference) ** 2)) / float(weight.sum())
        if se == 0:
            return Effect(difference, why_not="nothing varies"), means[0], means[1]
        half = float(ndtri(1 - alpha / 2)) * se
        p_value = 2 * float(ndtr(-abs(difference) / se))
        found = Effect(
            difference,
            difference - half,
            difference + half,
            p_value=p_value,
            interval="adaptive",
        )
        return found, means[0], means[1]


def refuse_options(given: Sequence[tuple[str, object]]) -> None:
    """Refuse options that a bandit's log does not allow."""
    for name, value in given:
        if value is not None:
            raise AttributionError(
                f"`{name}` is not for variants that a bandit gave out (`probability` names a "
                "column for each). Leave it out."
            )
