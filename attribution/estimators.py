"""Off-policy estimators: each turns logged probabilities into a ratio of sums over rows.

Every estimator here has the form

    V̂ = Σ_i h_i b_i / Σ_i h_i  +  Σ_i h_i w_i g_i / Σ_i h_i s_i

with a base b that needs no weight, a gain g that is weighted by w_i, a size s that is one or, in
self-normalised estimators, w_i itself, and a share h that tells how much a row counts: one, unless
loggers are mixed or the log is adaptive. Point estimates, jackknives, bootstrap, empirical
likelihood and confidence sequences follow from those columns, so none of them is written once for
each estimator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from attribution.intervals import Part

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the log says of one target; all (n,).

    ``weight`` is π(a_i|x_i) / p_i. ``q_target`` is Σ_a π(a|x_i) q̂(x_i, a) and ``residual`` is
    r_i − q̂(x_i, a_i): 0.0 and the reward itself without a reward model.
    """

    reward: FloatArray
    weight: FloatArray
    q_target: FloatArray | float
    residual: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The columns of an estimate, (n,) each.

    ``base`` b, or 0.0 where an estimator has none; ``weight`` w, ``gain`` g; ``self_normalised``
    where the size is w and not one; ``share`` h, or 1.0 where every row counts alike.
    """

    base: FloatArray | float
    weight: FloatArray
    gain: FloatArray
    self_normalised: bool = False
    share: FloatArray | float = 1.0

    def rows(self, rows: slice) -> Terms:
        """The terms of some rows."""
        base, share = self.base, self.share
        return Terms(
            base if isinstance(base, float) else base[rows],
            self.weight[rows],
            self.gain[rows],
            self.self_normalised,
            share if isinstance(share, float) else share[rows],
        )

    @property
    def total(self) -> FloatArray:
        """h (b + w g), (n,) in the reward's unit."""
        total: FloatArray = self.weight * self.gain
        if not isinstance(self.base, float):
            total += self.base
        return total if isinstance(self.share, float) else total * self.share

    def ratios(self, size: FloatArray | float) -> list[Part]:
        """Numerators and sizes, row by row, of the ratios whose sum is the estimate.

        ``size`` is what a row counts for where the weights do not tell.
        """
        total = self.total
        if not self.self_normalised:
            return [(total, size)]
        plain = isinstance(self.share, float)
        weight = self.weight if plain else self.weight * self.share
        if isinstance(self.base, float):
            return [(total, weight)]
        base = self.base if plain else self.base * self.share
        return [(base, size), (total - base, weight)]


def ips(evidence: Evidence) -> Terms:
    """Inverse propensity scoring.

        V̂ = (1/n) Σ_i w_i r_i

    Unbiased if the propensities are right and the target draws only what could be logged.

    References
    ----------
    Horvitz & Thompson (1952), A Generalization of Sampling Without Replacement From a Finite
    Universe, JASA 47(260).
    """
    return Terms(0.0, evidence.weight, evidence.reward)


def snips(evidence: Evidence) -> Terms:
    """Self-normalised inverse propensity scoring.

        V̂ = Σ_i w_i r_i / Σ_i w_i

    Consistent, of order 1/n biased, unmoved by a constant added to the reward, and always
    within the rewards seen.

    References
    ----------
    Swaminathan & Joachims (2015), The Self-Normalized Estimator for Counterfactual Learning,
    NeurIPS 28.
    """
    return Terms(0.0, evidence.weight, evidence.reward, self_normalised=True)


def direct_method(evidence: Evidence) -> Terms:
    """The direct method: what the reward model expects of the target.

        V̂ = (1/n) Σ_i Σ_a π(a|x_i) q̂(x_i, a)

    As biased as the model is. Its interval tells the spread of contexts, not that bias.
    """
    zero = np.zeros_like(evidence.reward)
    return Terms(evidence.q_target, zero, zero)


def doubly_robust(evidence: Evidence) -> Terms:
    """The doubly robust estimator.

        V̂ = (1/n) Σ_i [ Σ_a π(a|x_i) q̂(x_i, a) + w_i (r_i − q̂(x_i, a_i)) ]

    Consistent if either the propensities or q̂ are right; with known propensities unbiased
    whatever q̂ is, as long as q̂ at row i never saw the unit of row i.

    References
    ----------
    Dudik, Erhan, Langford & Li (2014), Doubly Robust Policy Evaluation and Optimization,
    Statistical Science 29(4).
    """
    return Terms(evidence.q_target, evidence.weight, evidence.residual)


def self_normalised_doubly_robust(evidence: Evidence) -> Terms:
    """The doubly robust estimator with its correction self-normalised.

        V̂ = (1/n) Σ_i Σ_a π(a|x_i) q̂(x_i, a) + Σ_i w_i (r_i − q̂(x_i, a_i)) / Σ_i w_i

    References
    ----------
    Kallus & Uehara (2019), Intrinsically Efficient, Stable, and Bounded Off-Policy Evaluation for
    Reinforcement Learning, NeurIPS 32.
    """
    return Terms(evidence.q_target, evidence.weight, evidence.residual, self_normalised=True)


def clipped(weight: FloatArray, largest: float) -> FloatArray:
    """min(w, λ): no weight above ``largest``.

    References
    ----------
    Ionides (2008), Truncated Importance Sampling, JCGS 17(2).
    """
    return np.minimum(weight, largest)


def switched(weight: FloatArray, largest: float) -> FloatArray:
    """w where w ≤ λ, else 0, which leaves the row to the reward model.

    References
    ----------
    Wang, Agarwal & Dudik (2017), Optimal and Adaptive Off-Policy Evaluation in Contextual
    Bandits, ICML.
    """
    return np.where(weight <= largest, weight, 0.0)


def optimistically_shrunk(weight: FloatArray, strength: float) -> FloatArray:
    """λ w / (w² + λ), which minimises a bound of the mean squared error over bounded models.

    References
    ----------
    Su, Dimakopoulou, Krishnamurthy & Dudik (2020), Doubly Robust Off-Policy Evaluation with
    Shrinkage, ICML.
    """
    if math.isinf(strength):
        return weight
    shrunk: FloatArray = strength * weight / (weight * weight + strength)
    return shrunk


def sub_gaussian(weight: FloatArray, strength: float) -> FloatArray:
    """w / (1 − λ + λ w), the weighted harmonic mean of w and one.

    References
    ----------
    Metelli, Russo & Restelli (2021), Subgaussian and Differentiable Importance Sampling for
    Off-Policy Evaluation and Learning, NeurIPS 34.
    """
    tamed: FloatArray = weight / (1 - strength + strength * weight)
    return tamed


def on_policy(evidence: Evidence) -> Terms:
    """The value of the logging policy itself, the mean reward, in terms that pair with others.

    V̂ = (1/n) Σ_i [ q̂(x_i, a_i) + 1 · (r_i − q̂(x_i, a_i)) ]
    """
    one = np.ones_like(evidence.reward)
    return Terms(evidence.reward - evidence.residual, one, evidence.residual)


@dataclass(frozen=True, slots=True)
class Tuning:
    """One number that trades variance for bias, and the grid from which SLOPE takes it.

    ``transform`` is what it does to the weights; ``unbiased`` the value at which that is nothing.
    The grid runs from the least to the most bias.
    """

    transform: Callable[[FloatArray, float], FloatArray]
    unbiased: float
    grid: tuple[float, ...]
    most: float = math.inf


_LARGEST = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 5.0, 2.0)
_STRENGTH = (math.inf, 1e5, 1e4, 1e3, 100.0, 10.0, 1.0)
_HARMONIC = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator and what it asks for.

    ``needs_model`` says that it reads q̂ and hence the target's whole pmf; ``biased`` that its
    interval ignores a bias, so that it never carries a verdict; ``tuning`` that its weights are
    transformed by a number to choose; ``weights`` which weights it reads: those of actions, of
    their embeddings, or of matches with a deterministic target; ``shares`` that rows count as an
    adaptive log wants it, and that q̂ is fitted on earlier rows.
    """

    terms: Callable[[Evidence], Terms]
    needs_model: bool = False
    biased: bool = False
    tuning: Tuning | None = None
    weights: Literal["action", "embedding", "match"] = "action"
    shares: Literal["equal", "by_snapshot", "by_context"] = "equal"


ESTIMATORS: Mapping[str, Estimator] = {
    "ips": Estimator(ips),
    "snips": Estimator(snips),
    "dm": Estimator(direct_method, needs_model=True, biased=True),
    "dr": Estimator(doubly_robust, needs_model=True),
    "sndr": Estimator(self_normalised_doubly_robust, needs_model=True),
    "cressie_read": Estimator(ips),
    "replay": Estimator(snips, weights="match"),
    "clipped_ips": Estimator(ips, biased=True, tuning=Tuning(clipped, math.inf, _LARGEST)),
    "switch_dr": Estimator(
        doubly_robust, needs_model=True, biased=True, tuning=Tuning(switched, math.inf, _LARGEST)
    ),
    "dros": Estimator(
        doubly_robust,
        needs_model=True,
        biased=True,
        tuning=Tuning(optimistically_shrunk, math.inf, _STRENGTH),
    ),
    "sg_ips": Estimator(ips, biased=True, tuning=Tuning(sub_gaussian, 0.0, _HARMONIC, most=1.0)),
    "sg_dr": Estimator(
        doubly_robust,
        needs_model=True,
        biased=True,
        tuning=Tuning(sub_gaussian, 0.0, _HARMONIC, most=1.0),
    ),
    "mips": Estimator(ips, biased=True, weights="embedding"),
    "aw_aipw": Estimator(doubly_robust, needs_model=True, shares="by_snapshot"),
    "caw_aipw": Estimator(doubly_robust, needs_model=True, shares="by_context"),
}
