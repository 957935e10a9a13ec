"""Slates and rankings: several items drawn one after the other, each with a reward of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError, refuse_rows
from attribution.estimators import Terms
from attribution.log import PMF_TOLERANCE, check_range

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

# The weight of a whole slate is a product over its positions: beyond these its variance leaves
# nothing to estimate from, whatever the log's size.
MOST_POSITIONS = 5


@dataclass(frozen=True, slots=True, eq=False)
class SlateLog:
    """n logged slates of l positions.

    Parameters
    ----------
    reward
        (n, l) of each position; the reward of a slate is their sum.
    propensity
        (n, l) in (0, 1]: the probability of the item at each position, given the context and the
        items before it. Their product is the slate's.
    marginal
        (n, l) in (0, 1]: the probability of the item at each position, given the context alone;
        ``iips`` and ``pi`` read it. Where positions are drawn apart it is ``propensity``.
    unit
        (n,) codes 0…m−1 of the randomisation unit, or None where each slate is a unit.
    reward_range
        The smallest and largest reward of a slate that are possible, known beforehand.
    max_weight
        The largest weight of a slate that any target could meet, known beforehand.
    """

    reward: FloatArray
    propensity: FloatArray
    marginal: FloatArray | None = None
    unit: IntArray | None = None
    reward_range: tuple[float, float] | None = None
    max_weight: float = math.inf

    def __post_init__(self) -> None:
        shape = self.reward.shape
        if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
            raise AttributionError(
                f"`reward` has shape {shape}. Give two slates or more, a column for each position."
            )
        for name in ("reward", "propensity", "marginal"):
            value = getattr(self, name)
            if value is None:
                continue
            check_positions(name, value, shape)
            if name != "reward":
                refuse_rows(
                    ~((value > 0) & (value <= 1)).all(axis=1),
                    name,
                    "is not in (0, 1]",
                    "Log the probability with which each item was drawn at its position.",
                )
        if self.unit is not None and (
            len(self.unit) != shape[0]
            or self.unit.min() < 0
            or not np.bincount(self.unit).all()
            or self.unit.max() < 1
        ):
            raise AttributionError(
                f"`unit` must hold {shape[0]:,} codes 0…m−1 of two units or more, as "
                "pandas.factorize gives them."
            )
        if not self.max_weight > 1:
            raise AttributionError(f"`max_weight` is {self.max_weight}. It must exceed 1.")
        if self.reward_range is not None:
            check_range(self.reward_range, self.reward.sum(axis=1), "of a slate ")

    @property
    def n(self) -> int:
        """Slates."""
        return len(self.reward)

    @property
    def positions(self) -> int:
        """Positions of each slate."""
        return int(self.reward.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class SlateTarget:
    """What a target would have drawn, at the logged slates; all (n, l).

    Parameters
    ----------
    propensity, marginal
        As the log's, of the target.
    q_logged
        For ``cascade_dr``: expected sum of rewards from each position on, given the items logged
        up to and including it.
    q_target
        The same, the item at the position drawn by the target.
    """

    propensity: FloatArray
    marginal: FloatArray | None = None
    q_logged: FloatArray | None = None
    q_target: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """A target over the log: ratios at each position and of each prefix, (n, l)."""

    log: SlateLog
    target: SlateTarget
    name: str

    @property
    def prefix(self) -> FloatArray:
        """Π_{j ≤ l} π(a_j | x, a_<j) / p(a_j | x, a_<j)."""
        self._check(self.target.propensity)
        ratios: FloatArray = self.target.propensity / self.log.propensity
        return ratios.cumprod(axis=1)

    @property
    def marginal(self) -> FloatArray:
        """π(a_l | x) / p(a_l | x)."""
        if self.log.marginal is None or self.target.marginal is None:
            raise AttributionError(
                f"`targets.{self.name}` or the log has no `marginal`, the probability of an item "
                "at its position whatever stands before it. Give both."
            )
        self._check(self.target.marginal)
        ratios: FloatArray = self.target.marginal / self.log.marginal
        return ratios

    def _check(self, chance: FloatArray) -> None:
        """Raise unless these are the target's probabilities, (n, l)."""
        name = f"targets.{self.name}"
        check_positions(name, chance, self.log.reward.shape)
        refuse_rows(
            np.asarray(((chance < 0) | (chance > 1 + PMF_TOLERANCE)).any(axis=1)),
            name,
            "is not in [0, 1]",
            "Give the target's probability of each item that was logged.",
        )


def standard(of: Ratios) -> Terms:
    """Inverse propensity scoring of whole slates: Π_l ratio_l · Σ_l r_l.

    Raises
    ------
    AttributionError
        For slates of more than `MOST_POSITIONS` positions.
    """
    if of.log.positions > MOST_POSITIONS:
        raise AttributionError(
            f"`estimators` names 'sips' for slates of {of.log.positions} positions, whose weights "
            f"are products of as many: beyond {MOST_POSITIONS} nothing can be told. Use 'rips', "
            "'cascade_dr', 'iips' or 'pi', and mind what each supposes."
        )
    weight: FloatArray = of.prefix[:, -1]
    refuse_rows(
        weight > of.log.max_weight * (1 + 1e-9),
        f"targets.{of.name}",
        f"has a weight above `max_weight` ({of.log.max_weight:g})",
        "Declare the largest weight that is possible.",
        weight,
    )
    return Terms(0.0, weight, of.log.reward.sum(axis=1))


def independent(of: Ratios) -> Terms:
    """Independent IPS: Σ_l marginal ratio_l · r_l.

    Right if a position's reward depends on its own item alone.

    References
    ----------
    Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen (2018), Offline Evaluation of Ranking
    Policies with Click Models, KDD.
    """
    return _summed((of.marginal * of.log.reward).sum(axis=1))


def reward_interaction(of: Ratios) -> Terms:
    """Reward-interaction IPS: Σ_l (Π_{j ≤ l} ratio_j) r_l.

    Right if a position's reward does not depend on the items after it, as in a cascade.

    References
    ----------
    McInerney, Brost, Chandar, Mehrotra & Carterette (2020), Counterfactual Evaluation of Slate
    Recommendations with Sequential Reward Interactions, KDD.
    """
    return _summed((of.prefix * of.log.reward).sum(axis=1))


def cascade_doubly_robust(of: Ratios) -> Terms:
    """The cascade doubly robust estimator.

        Σ_l [ w_{1:l} (r_l − Q̂_l(x, a_{1:l})) + w_{1:l−1} Σ_a π(a | x, a_<l) Q̂_l(x, a_<l, a) ]

    with Q̂_l the expected sum of rewards from l on. Right where `reward_interaction` is, whatever
    Q̂ is, as long as it never saw the row's unit.

    References
    ----------
    Kiyohara, Saito, Matsuhiro, Narita, Shimizu & Yamamoto (2022), Doubly Robust Off-Policy
    Evaluation for Ranking Policies under the Cascade Behavior Model, WSDM.
    """
    target, log = of.target, of.log
    if target.q_logged is None or target.q_target is None:
        raise AttributionError(
            f"`targets.{of.name}` has no `q_logged` and `q_target`, which 'cascade_dr' needs. "
            "Give both, or use 'rips'."
        )
    for name in ("q_logged", "q_target"):
        check_positions(f"targets.{of.name}.{name}", getattr(target, name), log.reward.shape)
    prefix = of.prefix
    before = np.column_stack([np.ones(log.n), prefix[:, :-1]])
    # Q̂_l speaks of all rewards from l on; what the positions after l add is in their own terms.
    terms = prefix * (log.reward - target.q_logged) + before * target.q_target
    return _summed(terms.sum(axis=1))


def pseudo_inverse(of: Ratios) -> Terms:
    """The pseudo-inverse estimator for positions that were drawn apart.

        (Σ_l marginal ratio_l − l + 1) · Σ_l r_l

    Right if a slate's reward is a sum of what each item brings at its position, and the log's
    positions were drawn independently given the context.

    References
    ----------
    Swaminathan, Krishnamurthy, Agarwal, Dudik, Langford, Jose & Zitouni (2017), Off-Policy
    Evaluation for Slate Recommendation, NeurIPS 30.

    Raises
    ------
    AttributionError
        If positions were not drawn apart: the log's ``marginal`` differs from its ``propensity``.
    """
    marginal = of.marginal
    logged = of.log.propensity if of.log.marginal is None else of.log.marginal
    together = ~np.isclose(of.log.propensity, logged).all(axis=1)
    refuse_rows(
        np.atleast_1d(together),
        "marginal",
        "differs from `propensity`",
        "'pi' is written for positions that were drawn apart. Use 'rips' or 'iips'.",
    )
    weight = marginal.sum(axis=1) - of.log.positions + 1
    return Terms(0.0, weight, of.log.reward.sum(axis=1))


def check_positions(name: str, value: FloatArray, shape: tuple[int, ...]) -> None:
    """Raise unless ``value`` is finite and has the log's shape."""
    if value.shape != shape:
        raise AttributionError(
            f"`{name}` has shape {value.shape} and the log's slates {shape}. They must agree."
        )
    refuse_rows(
        ~np.isfinite(value.sum(axis=1)),
        name,
        "is not a finite number",
        "Leave out slates whose outcome is not known yet.",
    )


def _summed(total: FloatArray) -> Terms:
    """Terms of an estimate that has no single weight: its rows' values themselves."""
    return Terms(0.0, np.ones_like(total), total)


@dataclass(frozen=True, slots=True)
class SlateEstimator:
    """An estimator of slates: its terms, which ratios it weighs by, and what it supposes."""

    terms: Callable[[Ratios], Terms]
    weights: Callable[[Ratios], FloatArray]
    supposes: str = ""


def _last(of: Ratios) -> FloatArray:
    return of.prefix[:, -1]


def _heaviest(of: Ratios) -> FloatArray:
    """The ratios of the position whose marginal weights vary most."""
    ratios = of.marginal
    found: FloatArray = ratios[:, int(ratios.var(axis=0).argmax())]
    return found


SLATE_ESTIMATORS: Mapping[str, SlateEstimator] = {
    "sips": SlateEstimator(standard, _last),
    "iips": SlateEstimator(
        independent, _heaviest, "a position's reward depends on its own item alone"
    ),
    "rips": SlateEstimator(
        reward_interaction, _last, "a position's reward does not depend on the items after it"
    ),
    "cascade_dr": SlateEstimator(
        cascade_doubly_robust, _last, "a position's reward does not depend on the items after it"
    ),
    "pi": SlateEstimator(
        pseudo_inverse, _heaviest, "a slate's reward is a sum over its positions"
    ),
}  # fmt: skip
