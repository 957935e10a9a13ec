"""Top-two Thompson sampling: for those who want a winner, and to know how sure it is.

Thompson sampling soon shows the best action nearly always, so that it is slow to become sure that
no other is better. Top-two sampling draws I with the posterior probability p that it is the best,
and shows it with probability β; else it draws on until another action J comes, and shows that. So

    ψ_a = β p_a + (1 − β) Σ_{j≠a} p_j p_a / (1 − p_j),

with p by quadrature as in `policies.thompson`, hence exactly. Stop once the largest p_a is at
least the ``confidence``: `Winner` says so. That is a posterior probability, which may be looked
at as often as one likes and means what the prior means; it is no error rate over repetitions.

References
----------
Russo (2016), Simple Bayesian Algorithms for Best Arm Identification, COLT.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from policies.thompson import (
    ThompsonBeta,
    ThompsonBetaParameters,
    ThompsonGaussian,
    ThompsonGaussianParameters,
)
from policies.types import Action, FloatArray, Winner, action_ids

Share = Annotated[
    float, msgspec.Meta(gt=0, le=1, description="β: how often the first draw is shown.")
]
Confidence = Annotated[
    float,
    msgspec.Meta(gt=0, lt=1, description="P(best) at which the winner is told to be settled."),
]


class TopTwoBetaParameters(ThompsonBetaParameters, frozen=True):
    """Parameters of `TopTwoBeta`."""

    share: Share = 0.5
    confidence: Confidence = 0.95


class TopTwoBeta(ThompsonBeta[TopTwoBetaParameters]):
    """Over the Beta posteriors of `ThompsonBeta`; rewards in [0, 1]."""

    kind = "top_two_beta"
    parameters_model = TopTwoBetaParameters

    def _best(self, rows: FloatArray) -> FloatArray:
        return top_two(super()._best(rows), self.parameters.share)

    def winner(self, actions: Sequence[Action]) -> Winner:
        """See `policies.types.Policy.winner`."""
        ids = action_ids(actions)
        return _winner(ids, super()._best(self._rows(ids)), self.parameters.confidence)


class TopTwoGaussianParameters(ThompsonGaussianParameters, frozen=True):
    """Parameters of `TopTwoGaussian`."""

    share: Share = 0.5
    confidence: Confidence = 0.95


class TopTwoGaussian(ThompsonGaussian[TopTwoGaussianParameters]):
    """Over the normal posteriors of `ThompsonGaussian`; any reward."""

    kind = "top_two_gaussian"
    parameters_model = TopTwoGaussianParameters

    def _best(self, rows: FloatArray) -> FloatArray:
        return top_two(super()._best(rows), self.parameters.share)

    def winner(self, actions: Sequence[Action]) -> Winner:
        """See `policies.types.Policy.winner`."""
        ids = action_ids(actions)
        return _winner(ids, super()._best(self._rows(ids)), self.parameters.confidence)


def top_two(best: FloatArray, share: float) -> FloatArray:
    """ψ (k,) from p (k,): see the module.

    Where the others' probabilities are all zero they share alike what J gets.
    """
    k = len(best)
    if k == 1:
        return np.ones(1)
    others = np.tile(best, (k, 1))
    np.fill_diagonal(others, 0.0)
    total = others.sum(axis=1)
    # 1 − p_j as the sum of the others: the subtraction would leave no digits of a small one.
    alike = (1.0 - np.eye(k)) / (k - 1)
    second = np.divide(others, total[:, None], out=alike, where=total[:, None] > 0.0)
    psi = share * best + (1.0 - share) * (best @ second)
    return np.asarray(psi / psi.sum())


def _winner(ids: tuple[str, ...], best: FloatArray, confidence: float) -> Winner:
    leader = int(best.argmax())
    probability = float(best[leader])
    return Winner(ids[leader], probability, probability >= confidence)
