"""Policies that read no context and choose by means: epsilon-greedy, softmax and UCB1."""

import math
from typing import Annotated

import msgspec
import numpy as np

from policies.per_action import ShrunkMeans, ShrunkParameters
from policies.types import FloatArray

_TIE = 1e-9


class EpsilonGreedyParameters(ShrunkParameters, frozen=True):
    """Parameters of `EpsilonGreedy`."""

    epsilon: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Share spread over all eligible actions.")
    ] = 0.1


class EpsilonGreedy(ShrunkMeans[EpsilonGreedyParameters]):
    """The action of the largest mean with probability 1 − ε + ε / k, each other with ε / k.

    Means within 1e-9 σ̂ of the largest are ties, and share alike.
    """

    kind = "epsilon_greedy"
    learns = True
    parameters_model = EpsilonGreedyParameters

    def _best(self, rows: FloatArray) -> FloatArray:
        epsilon = self.parameters.epsilon
        if self._constant():
            return np.full(len(rows), 1.0 / len(rows))
        greedy = _largest(self._means(rows), _TIE * self._noise())
        return np.asarray((1.0 - epsilon) * greedy + epsilon / len(rows))


class SoftmaxParameters(ShrunkParameters, frozen=True):
    """Parameters of `Softmax`."""

    temperature: Annotated[
        float,
        msgspec.Meta(ge=1e-3, le=1e3, description="In residual standard deviations of the reward."),
    ] = 0.1


class Softmax(ShrunkMeans[SoftmaxParameters]):
    """In proportion to exp(r̂_a / (τ σ̂)), r̂ the shrunk mean and τ = ``temperature``.

    Counted in σ̂, the reward's unit does not matter. The temperature does not fall: as many
    rewards come in, an action half a deviation worse keeps exp(−0.5 / τ) of the best's probability.
    """

    kind = "softmax"
    learns = True
    parameters_model = SoftmaxParameters

    def _best(self, rows: FloatArray) -> FloatArray:
        means = self._means(rows)
        if self._constant():
            return np.full(len(rows), 1.0 / len(rows))
        score = np.exp((means - means.max()) / self._noise() / self.parameters.temperature)
        return np.asarray(score / score.sum())


class UCB1Parameters(ShrunkParameters, frozen=True):
    """Parameters of `UCB1`."""

    exploration: Annotated[
        float, msgspec.Meta(ge=0, le=1e3, description="Factor on the bonus; 2 is UCB1's own.")
    ] = 2.0


class UCB1(ShrunkMeans[UCB1Parameters]):
    """The action of the largest r̂_a + c σ̂ √(2 ln n / n_a), those never tried before all others.

    n is the number of rewards, n_a those of the action, c = ``exploration``. UCB1 itself bounds
    rewards in [0, 1] by √(2 ln n / n_a), which is this with c = 2 and σ̂ = ½, the most it can be
    there; a σ̂ that is estimated serves rewards of any scale. The pmf is a point mass, ties sharing
    alike: the support that evaluation needs comes from the exploration floor.

    References
    ----------
    Auer, Cesa-Bianchi & Fischer (2002), Finite-time Analysis of the Multiarmed Bandit Problem,
    Machine Learning 47.
    """

    kind = "ucb1"
    learns = True
    parameters_model = UCB1Parameters

    def _best(self, rows: FloatArray) -> FloatArray:
        count = rows[:, 0]
        untried = count == 0.0
        if untried.any():
            return np.asarray(untried / untried.sum())
        if self._constant():
            return np.full(len(rows), 1.0 / len(rows))
        noise = self._noise()
        learned = float(self._statistics[:, 0].sum())
        bonus = self.parameters.exploration * noise * np.sqrt(2.0 * math.log(learned) / count)
        return _largest(self._means(rows) + bonus, _TIE * noise)


def _largest(score: FloatArray, slack: float) -> FloatArray:
    """(k,): 1 for the largest score, shared alike by those within the slack."""
    best = (score >= score.max() - slack).astype(np.float64)
    return np.asarray(best / best.sum())
