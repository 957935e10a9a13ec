"""A/A checks: how often lift would cry wolf on one's own units, which nothing divides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from attribution.anytime import NormalMixture
from attribution.contrasts import Horizon, Prior, Rules, compare
from attribution.effects import TUNED_AT
from attribution.errors import AttributionError
from attribution.lift_metrics import Metric, Quantile, as_metrics
from attribution.log import as_pandas, column, numbers
from attribution.moments import Moments
from attribution.rollups import prepared_rows
from attribution.variant_means import from_moments

IntArray = npt.NDArray[np.intp]

_DOUBT: Final = 0.001
_PAIR: Final[IntArray] = np.arange(2)
_UNKNOWN: Final = np.full(2, np.nan)
_ONE: Final[IntArray] = np.zeros(2, np.intp)


@dataclass(frozen=True, slots=True)
class AACheck:
    """How many random splits of the same units showed a difference, at any look.

    ``p_value`` is the chance of as many or more if the promise of ``alpha`` is kept; ``verdict`` is
    ``ok``, or ``too many false alarms`` where that is below .001.
    """

    metric: str
    splits: int
    alarms: int
    p_value: float
    verdict: str


def aa_check(
    units: Any,
    *,
    metrics: Sequence[str | Metric],
    seed: int,
    share: float = 0.5,
    order: str | None = None,
    splits: int = 200,
    looks: int = 20,
    alpha: float = 0.05,
    horizon: Horizon = "always",
    tuned_at: float = TUNED_AT,
) -> tuple[AACheck, ...]:
    """Split units at random, look as often as one would, and count what seems to differ.

    Units are of one variant, or from before any experiment. Nothing divides the halves but chance,
    so that more alarms than ``alpha`` mean that this metric, with these tails and this share,
    breaks the intervals' promise: cap it, or wait longer.

    Parameters
    ----------
    units
        A frame or path, one row a unit.
    metrics
        As for `lift`; quantiles have no such check.
    seed
        Of the splits, so that a check can be repeated.
    share
        The share that is called treated, as in the experiment that is planned.
    order
        A column by whose order the units enter; by default as they stand.
    splits, looks
        How many splits, and how often each is looked at as it grows. At a fixed horizon only
        the last look counts.

    Raises
    ------
    AttributionError
        If a column or value is not valid, a number is out of bounds, or units are too few.
    """
    table = as_pandas(units)
    if order is not None:
        table = table.iloc[np.argsort(column(table, order, "order").to_numpy(), kind="stable")]
    for name, value, sound, repair in (
        ("share", share, 0 < share < 1, "It must lie in (0, 1)."),
        ("splits", splits, splits >= 1, "Split at least once."),
        ("looks", looks, 1 <= looks <= max(len(table), 1), "Look once a unit at most."),
        ("alpha", alpha, 0 < alpha < 1, "It must lie in (0, 1)."),
    ):
        if not sound:
            raise AttributionError(f"`{name}` is {value}. {repair}")
    rules = Rules(alpha, horizon, NormalMixture(tuned_at), Prior())
    rng = np.random.default_rng(seed)
    found = []
    for metric in as_metrics(metrics, None):
        if isinstance(metric, Quantile):
            raise AttributionError(f"`metrics` has {metric.name!r}: quantiles have no A/A check.")
        values = {name: numbers(table, name, "metrics") for name in metric.columns}
        rows, known = prepared_rows(metric, values)
        rows = rows[known]
        look = np.arange(len(rows)) * looks // max(len(rows), 1)
        alarms = 0
        for _ in range(splits):
            cell = (2 * look + (rng.random(len(rows)) < share)).astype(np.intp)
            parts = Moments.of(rows, cell, 2 * looks, metric.resting)
            alarms += _alarmed(metric, parts, looks, rules)
        p_value = float(bdtrc(alarms - 1, splits, alpha)) if alarms else 1.0
        verdict = "too many false alarms" if p_value < _DOUBT else "ok"
        found.append(AACheck(metric.name, splits, alarms, p_value, verdict))
    return tuple(found)


def _alarmed(metric: Metric, parts: Moments, looks: int, rules: Rules) -> bool:
    """Whether any look at which one would believe the interval shows a difference."""
    both = parts.only(_PAIR)
    for look in range(looks):
        if look:
            both = both + parts.only(2 * look + _PAIR)
        if both.n.min() < 2 or (rules.horizon == "fixed" and look < looks - 1):
            continue
        means = from_moments(metric, both, _PAIR, _UNKNOWN, _ONE)
        if compare(means, 1, ("treated", "rest"), rules).p_value < rules.alpha:
            return True
    return False
