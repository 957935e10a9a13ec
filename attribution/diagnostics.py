"""Diagnostics: whether a log can support an estimate of a target, and the reason if not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, ndtr, stdtr, stdtrit

from attribution.intervals import (
    Part,
    Spread,
    blocks,
    deviations,
    sliced,
    spread,
    totals,
    unit_sums,
)
from attribution.log import PMF_TOLERANCE, EvaluationLog
from attribution.trials import ASYMPTOTIC, Setting, Shape

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Verdict = Literal["ok", "weak", "not_estimable"]

# Below ten effective units, or with half of the weight on one of them, the estimate is a tale of
# a few units, and no interval from the sample can know what the others would have said.
LEAST_ESS = 10.0
LARGEST_SHARE = 0.5
# Share of the target's choices of which the log can say nothing: every estimate is off by up to
# this share of the reward's range.
UNSUPPORTED_REFUSED = 0.1
UNSUPPORTED_WEAK = 0.01
# Calibration and mean weight are hypotheses about the log that ought to be true of every log.
CALIBRATION_ALPHA = 0.001
# Of a count's variance: from here on the normal law holds well enough for a test at .001.
LEAST_NORMAL_VARIANCE = 10.0
# Parts of a log, in the order of time, among which its probabilities are compared.
PERIODS = 10


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What is known of one target on one log before any value is believed.

    Parameters
    ----------
    ess
        Effective number of units, (Σ W)² / Σ W² over unit sums W of the weights (Kish 1965,
        Survey Sampling, section 11.7).
    max_weight_share
        Share of all weight that the heaviest unit bears.
    mean_weight, mean_weight_p
        The weights' mean, one in expectation, and the p-value of that (by unit, t). A
        supplement: under very heavy weights it has no power.
    min_weight, max_weight
        Range of the rows' weights.
    tail_index
        Shape of the tail of the units' weights; see `tail_index`.
    unsupported
        Share of the target's choices that the log cannot speak of, the larger of two: those of
        logged probability 0 where the log has a pmf, otherwise those never drawn; and what the
        weights' mean lacks of one beyond chance (t, .001), for E[w] = 1 − that share. Only the
        second is known of a target that is a column.
    calibration_p
        The smallest p-value over actions of Σ(1{a} − p) = 0, times the number of actions; NaN
        unless the log has its pmf.
    asymmetry
        The largest of the unbiased estimators' (see `intervals.Spread`).
    weight_asymmetry
        The same of the weights.
    df
        The fewest degrees of freedom of the unbiased estimators' variances.
    adaptive
        Whether the logging policy learned while it logged; see `is_adaptive`.
    drift
        How far the logged probabilities moved in time, from 0 to 1; see `drift`. By itself it is
        no fault.
    missing_p
        p-value that outcomes are missing in as many rows whatever the action; NaN where none is
        counted.
    verdict, reason
        ``ok``; ``weak``, believe it with the reason in mind; ``not_estimable``, no value is given.
    """

    n: int
    n_units: int
    ess: float
    max_weight_share: float
    mean_weight: float
    mean_weight_p: float
    min_weight: float
    max_weight: float
    tail_index: float
    unsupported: float
    calibration_p: float
    asymmetry: float
    weight_asymmetry: float
    df: float
    adaptive: bool
    drift: float
    missing_p: float
    verdict: Verdict
    reason: str

    @property
    def shape(self) -> Shape:
        """What the choice of an interval depends on."""
        return Shape(self.asymmetry, self.weight_asymmetry, self.df)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; NaN and infinities become null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def diagnose(
    log: EvaluationLog,
    weight: FloatArray,
    pmf: FloatArray | None,
    checks: Checks,
    estimates: Sequence[Spread],
    setting: Setting,
    *,
    stabilised: bool = False,
) -> Diagnostics:
    """Diagnostics of one target.

    Parameters
    ----------
    weight
        (n,) π(a_i|x_i) / p_i.
    pmf
        (n, k) the target, or None for one that is known at the logged actions only.
    checks
        What was found of the log itself.
    estimates
        Of the unbiased estimators that were asked for.
    setting
        What the intervals are to be.
    stabilised
        Whether the estimators that were asked for allow for a log that is adaptive.
    """
    own = weigh(weight, log.unit, log.n_units)
    return judge(own, _unsupported(log, pmf), checks, estimates, setting, stabilised=stabilised)


def judge(
    own: dict[str, Any],
    unsupported: float,
    checks: Checks,
    estimates: Sequence[Spread],
    setting: Setting,
    *,
    stabilised: bool = False,
) -> Diagnostics:
    """`Diagnostics` from what `weigh` tells of the weights and what was found beside them."""
    shape = Shape(
        max((each.asymmetry for each in estimates), default=0.0),
        own["weight_asymmetry"],
        min((each.df for each in estimates), default=math.inf),
    )
    values: dict[str, Any] = {
        **own,
        "unsupported": max(unsupported, own["unsupported"]),
        **asdict(checks),
        "asymmetry": shape.asymmetry,
        "df": shape.df,
    }
    wild = shape.wild if setting.interval == "auto" else not shape.tame
    if setting.interval in ("bernstein", "anytime"):
        wild = False
    verdict, reason = _verdict(
        values,
        wild=wild,
        guarded=setting.guards,
        silent=setting.sample.silent and setting.interval in ("auto", *ASYMPTOTIC),
        stabilised=stabilised,
    )
    return Diagnostics(**values, verdict=verdict, reason=reason)


def weigh(weight: FloatArray, unit: IntArray | None, n_units: int) -> dict[str, Any]:
    """What the weights alone tell, by the names of `Diagnostics`."""
    sums = unit_sums(weight, unit)
    part: Part = (sums, 1.0 if unit is None else unit_sums(np.ones(len(weight)), unit))
    whole = totals(sliced([part]))
    total = whole[0][0]
    return told_of_weights(
        len(weight),
        n_units,
        total,
        float(np.einsum("i,i->", sums, sums)),
        float(sums.max()),
        (float(weight.min()), float(weight.max())),
        spread(deviations(sliced([part]), whole), total / len(weight)),
        tail_index(sums),
    )


def told_of_weights(
    n: int,
    n_units: int,
    total: float,
    squares: float,
    heaviest: float,
    ends: tuple[float, float],
    seen: Spread,
    tail: float,
) -> dict[str, Any]:
    """`weigh` from sums: of the units' weights and their squares, and their largest.

    ``ends`` are the least and the largest weight of a row, ``seen`` is the spread of their mean.
    """
    mean = total / n
    reach = float(stdtrit(n_units - 1, 1 - CALIBRATION_ALPHA)) * seen.se
    return {
        "n": n,
        "n_units": n_units,
        "ess": total**2 / squares if total else 0.0,
        "max_weight_share": heaviest / total if total else 1.0,
        "mean_weight": mean,
        "mean_weight_p": (
            _two_sided_p((mean - 1) / seen.se, n_units - 1) if seen.se else float(mean == 1)
        ),
        "min_weight": ends[0],
        "max_weight": ends[1],
        "tail_index": tail,
        "unsupported": 1 - (mean + reach),
        # Equal weights are no fault of the weights: there is nothing that could be unseen.
        "weight_asymmetry": seen.asymmetry if seen.se else 0.0,
    }


def tail_index(weight: FloatArray) -> float:
    """Shape k of a generalised Pareto law fitted to the largest weights; NaN if they are too few.

    Of the largest min(m / 5, 3 √m), over the next smaller one, by the quasi-Bayesian fit
    of Zhang and Stephens, drawn a little to one half as in Pareto smoothed importance sampling.
    Above 0.5 the weights' variance is infinite, above 0.7 no practical number of rows helps. A
    bounded weight has a tail of its own beyond what is seen: k describes the sample.

    References
    ----------
    Zhang & Stephens (2009), A New and Efficient Estimation Method for the Generalized Pareto
    Distribution, Technometrics 51(3); Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto
    Smoothed Importance Sampling, JMLR 25.
    """
    m = len(weight)
    count = tail_size(m)
    # A partition of all weights would cost as much as the estimates: most are below what nearly
    # every sixteenth of them is below already.
    likely = weight
    if m >= 2**14:
        part = weight[::16]
        likely = weight[weight >= np.partition(part, -(count // 8))[-(count // 8)]]
        likely = likely if count < len(likely) < m / 4 else weight
    return tail_shape(np.partition(likely, len(likely) - count - 1)[len(likely) - count - 1 :])


def tail_size(m: int) -> int:
    """How many of m weights make their tail; one more is needed, from which it is measured."""
    return int(min(m / 5, 3 * math.sqrt(m)))


def tail_shape(largest: FloatArray) -> float:
    """`tail_index` of the largest weights, in any order, the smallest being the threshold."""
    if len(largest) < 6:
        return math.nan
    largest = np.sort(largest)
    x = largest[1:] - largest[0]
    if not x[0] > 0:
        # Ties at the threshold: the tail is what lies above them.
        x = x[x > 0]
    if len(x) < 5 or x[-1] == x[0]:
        return math.nan
    size = len(x)
    grid = 30 + int(math.sqrt(size))
    step = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = step / (3 * x[int(size / 4 + 0.5) - 1]) + 1 / x[-1]
    # At zero the law is the exponential, and the likelihood a quotient of zeros.
    b = b[np.abs(b) * x[-1] > 1e-9]
    shape = np.log1p(-b[:, None] * x).mean(axis=1)
    profile = size * (np.log(-b / shape) - shape - 1)
    credence = np.exp(profile - profile.max())
    best = float((b * credence).sum() / credence.sum())
    k = float(np.log1p(-best * x).mean())
    return float((size * k + 10 * 0.5) / (size + 10))


@dataclass(frozen=True, slots=True)
class Checks:
    """What is found of a log whatever the target: the fields of `Diagnostics` of these names."""

    calibration_p: float
    adaptive: bool
    drift: float
    missing_p: float


def check_log(log: EvaluationLog) -> Checks:
    """Calibration, adaptivity, drift of the propensities and missing outcomes of a log."""
    return Checks(calibration(log), is_adaptive(log), drift(log), missing_p(log))


def drift(log: EvaluationLog) -> float:
    """How far the logged probabilities moved in time: 0 not at all, 1 to other actions wholly.

    The largest total variation distance between the mean pmf of a tenth of the rows, in the order
    of time, and that of all. NaN without ``time`` or ``pmf``.
    """
    if log.time is None or log.pmf is None or log.n < 2 * PERIODS:
        return math.nan
    order = np.argsort(log.time, kind="stable")
    overall = log.pmf.mean(axis=0)
    means = [log.pmf[rows].mean(axis=0) for rows in np.array_split(order, PERIODS)]
    return float(max(0.5 * np.abs(mean - overall).sum() for mean in means))


def missing_p(log: EvaluationLog) -> float:
    """p-value that outcomes are missing alike whatever the action; NaN where none is counted.

    It counts rows: where units bring many whose outcomes go missing together, it alarms too easily.
    """
    if log.missing is None:
        return math.nan
    return missing_alike_p(np.bincount(log.action, minlength=log.k), log.missing)


def missing_alike_p(known: npt.NDArray[Any], missing: npt.NDArray[Any]) -> float:
    """Pearson's test of the table of actions, (k,), by known and missing."""
    table = np.stack([known, missing])[:, known + missing > 0]
    if table.shape[1] < 2 or not table[1].sum():
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic))


def _verdict(
    seen: dict[str, Any], *, wild: bool, guarded: bool, silent: bool, stabilised: bool
) -> tuple[Verdict, str]:
    if seen["calibration_p"] < CALIBRATION_ALPHA:
        return "not_estimable", (
            "the actions were not drawn with the logged probabilities "
            f"(calibration p = {seen['calibration_p']:.2g}); mend the log's propensities"
        )
    if seen["unsupported"] > UNSUPPORTED_REFUSED:
        return "not_estimable", (
            f"{seen['unsupported']:.1%} of the target's choices are actions that the log never "
            f"drew where the target would (the weights' mean is {seen['mean_weight']:.3g}); "
            "evaluate a target that stays among the logged actions"
        )
    if seen["ess"] < LEAST_ESS or seen["max_weight_share"] > LARGEST_SHARE:
        return "not_estimable", (
            f"the log's {seen['n_units']:,} units are worth {seen['ess']:.1f} under this target, "
            f"one bears {seen['max_weight_share']:.0%} of the weight and the largest weight is "
            f"{seen['max_weight']:,.1f}; log with more exploration of what the target does"
        )
    faults = []
    if seen["unsupported"] > UNSUPPORTED_WEAK:
        faults.append(f"{seen['unsupported']:.1%} of the target's choices were never drawn")
    if seen["mean_weight_p"] < CALIBRATION_ALPHA:
        faults.append(
            f"the weights' mean is {seen['mean_weight']:.3g} and not 1 "
            f"(p = {seen['mean_weight_p']:.2g}): propensities may be wrong, or the actions that "
            "the target likes most were hardly drawn"
        )
    if seen["missing_p"] < CALIBRATION_ALPHA:
        faults.append(
            "outcomes are missing more often after some actions than after others "
            f"(p = {seen['missing_p']:.2g}), which no weight repairs; mend the collection"
        )
    if seen["adaptive"] and not stabilised:
        faults.append(
            "the logging policy learned while it logged, and intervals that take units as "
            "independent cover somewhat less than they say; see aw_aipw"
        )
    if silent and not guarded:
        faults.append("the reward never varied, so there is no interval; declare reward_range")
    elif wild:
        faults.append(
            f"few units carry the estimate ({seen['ess']:,.0f} effective of {seen['n_units']:,}), "
            + (
                "so the interval is Cressie–Read's, wider and safe"
                if guarded
                else "so asymptotic intervals may cover less than they say; declare reward_range "
                "to have the Cressie–Read interval"
            )
        )
    if faults:
        return "weak", "; ".join(faults)
    return "ok", (
        f"the log's {seen['n_units']:,} units are worth {seen['ess']:,.0f} under this target and "
        "none dominates"
    )


def calibration(log: EvaluationLog) -> float:
    """p-value that actions were drawn with the logged pmf; NaN where the log has none.

    For each action D is the sum of 1{a} − p over rows, or over units of its mean over the unit's
    rows, which may all repeat one sticky draw; V is the same sum of p(1 − p), an upper bound of
    Var D. Where V ≥ 10, z = D / √V for rows and D / √Σ D_j² for units. Below, where the
    normal law does not hold, Bennett's inequality does at any size:

        P(|D| ≥ t) ≤ 2 exp(−V h(t / V)),   h(u) = (1 + u) log(1 + u) − u

    Bonferroni over all actions.

    References
    ----------
    Bennett (1962), Probability Inequalities for the Sum of Independent Random Variables, JASA
    57(297); Freedman (1975), On Tail Probabilities for Martingales, The Annals of Probability
    3(1), for policies that learned from the rows before.
    """
    if log.pmf is None:
        return math.nan
    rows = unit_sums(np.ones(log.n), log.unit)
    found = np.empty((3, log.k))
    for action in range(log.k):
        p = log.pmf[:, action]
        each = unit_sums((log.action == action) - p, log.unit) / rows
        variance = (unit_sums(p * (1 - p), log.unit) / rows).sum()
        found[:, action] = each.sum(), variance, (each * each).sum()
    return calibrated(found, len(rows), by_unit=log.unit is not None)


def calibrated(sums: FloatArray, m: int, *, by_unit: bool) -> float:
    """`calibration` from sums over m units, (3, k): D, V and Σ D_j² of each action."""
    least = 1.0
    for excess, variance, squares in sums.T.tolist():
        if variance >= LEAST_NORMAL_VARIANCE:
            spread = squares if by_unit else variance
            least = min(least, 2 * float(ndtr(-abs(excess) / math.sqrt(spread))))
        else:
            # What the rounding of stored probabilities could do is not held against the log.
            least = min(least, _bennett(abs(excess) - PMF_TOLERANCE * m, variance))
    return min(1.0, least * len(sums.T))


def _bennett(excess: float, variance: float) -> float:
    if excess <= 0:
        return 1.0
    if variance == 0:
        return 0.0
    ratio = excess / variance
    return 2 * math.exp(-variance * ((1 + ratio) * math.log1p(ratio) - ratio))


def is_adaptive(log: EvaluationLog) -> bool:
    """Whether the logging policy learned while it logged: as the log says, else by its loggers.

    Where the log does not say, it is taken to have learned if two or more loggers served one
    after the other, or if their times differ in rank by the Kruskal–Wallis test (p < .001), as
    they do when snapshots follow each other beside a logger that served throughout. Each unit
    counts once for each logger, at its mean time.

    References
    ----------
    Kruskal & Wallis (1952), Use of Ranks in One-Criterion Variance Analysis, JASA 47(260).
    """
    if log.adaptive is not None:
        return log.adaptive
    if log.logger is None or log.time is None or len(np.unique(log.logger)) < 2:
        return False
    frame = pd.DataFrame(
        {
            "logger": log.logger,
            "time": log.time.astype("datetime64[us]").astype(np.int64),
            "unit": np.arange(log.n) if log.unit is None else log.unit,
        }
    )
    spans = frame.groupby("logger")["time"].agg(["min", "max"]).sort_values("min").to_numpy()
    if (spans[1:, 0] >= spans[:-1, 1]).all():
        return True
    once = frame.groupby(["unit", "logger"])["time"].mean().reset_index()
    once["rank"] = once["time"].rank()
    between = once.groupby("logger")["rank"].agg(["count", "mean"])
    overall = (len(once) + 1) / 2
    spread = float(once["rank"].var())
    if spread == 0:
        return False
    h = float((between["count"] * (between["mean"] - overall) ** 2).sum()) / spread
    return float(chdtrc(len(between) - 1, h)) < CALIBRATION_ALPHA


def _unsupported(log: EvaluationLog, pmf: FloatArray | None) -> float:
    if pmf is None:
        return 0.0
    if log.pmf is not None:
        if log.pmf.min() > 0:
            return 0.0
        return sum(
            float(pmf[rows][log.pmf[rows] == 0].sum()) for rows in blocks(log.n, log.k)
        ) / log.n  # fmt: skip
    drawn = np.bincount(log.action, minlength=log.k) > 0
    return 0.0 if drawn.all() else float(pmf[:, ~drawn].sum()) / log.n


def _two_sided_p(t: float, df: int) -> float:
    return 2 * float(stdtr(df, -abs(t)))
