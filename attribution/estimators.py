"""Off-policy estimators: each turns logged probabilities into a ratio of two sums over rows.

Every estimator here has the form

    V̂ = Σ_i (b_i + w_i g_i) / Σ_i s_i

with a base b that needs no weight, a gain g that is weighted by w_i = π(a_i|x_i) / p_i, and a
size s. Point estimates, jackknives and empirical likelihood all follow from
those four columns, so none of them is written once for each estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the log says of one target; all (n,).

    ``weight`` is π(a_i|x_i) / p_i. ``q_target`` is Σ_a π(a|x_i) q̂(x_i, a) and ``q_logged`` is
    q̂(x_i, a_i): zeros where the estimator asks for no reward model.
    """

    reward: FloatArray
    weight: FloatArray
    q_target: FloatArray
    q_logged: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The columns base b, weight w, gain g and size s of an estimate; all (n,)."""

    base: FloatArray
    weight: FloatArray
    gain: FloatArray
    size: FloatArray

    @property
    def numerator(self) -> FloatArray:
        """b_i + w_i g_i, in the reward's unit."""
        return self.base + self.weight * self.gain

    @property
    def value(self) -> float:
        """The estimate, in the reward's unit; NaN where the sizes sum to zero."""
        size = float(self.size.sum())
        return float(self.numerator.sum()) / size if size else float("nan")


def ips(evidence: Evidence) -> Terms:
    """Inverse propensity scoring.

        V̂ = (1/n) Σ_i w_i r_i

    Unbiased if the propensities are right and the target draws only what could be logged.

    References
    ----------
    Horvitz & Thompson (1952), A Generalization of Sampling Without Replacement From a Finite
    Universe, JASA 47(260).
    """
    zero, one = np.zeros_like(evidence.reward), np.ones_like(evidence.reward)
    return Terms(base=zero, weight=evidence.weight, gain=evidence.reward, size=one)


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
    zero = np.zeros_like(evidence.reward)
    return Terms(base=zero, weight=evidence.weight, gain=evidence.reward, size=evidence.weight)


def direct_method(evidence: Evidence) -> Terms:
    """The direct method: what the reward model expects of the target.

        V̂ = (1/n) Σ_i Σ_a π(a|x_i) q̂(x_i, a)

    As biased as the model is. Its interval tells the spread of contexts, not that bias.
    """
    zero, one = np.zeros_like(evidence.reward), np.ones_like(evidence.reward)
    return Terms(base=evidence.q_target, weight=zero, gain=zero, size=one)


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
    return Terms(
        base=evidence.q_target,
        weight=evidence.weight,
        gain=evidence.reward - evidence.q_logged,
        size=np.ones_like(evidence.reward),
    )


def on_policy(evidence: Evidence) -> Terms:
    """The value of the logging policy itself, the mean reward, in terms that pair with others.

    V̂ = (1/n) Σ_i [ q̂(x_i, a_i) + 1 · (r_i − q̂(x_i, a_i)) ]
    """
    one = np.ones_like(evidence.reward)
    return Terms(
        base=evidence.q_logged,
        weight=one,
        gain=evidence.reward - evidence.q_logged,
        size=one,
    )


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator and what it asks for.

    ``needs_model`` says that it reads q̂ and hence the target's whole pmf; ``biased`` that its
    interval ignores a bias, so that it never carries a verdict.
    """

    terms: Callable[[Evidence], Terms]
    needs_model: bool = False
    biased: bool = False


ESTIMATORS: Mapping[str, Estimator] = {
    "ips": Estimator(ips),
    "snips": Estimator(snips),
    "dm": Estimator(direct_method, needs_model=True, biased=True),
    "dr": Estimator(doubly_robust, needs_model=True),
}
