"""Thompson sampling without a context, with its exact pmf.

The action is drawn with the posterior probability that it is the best (Thompson 1933; Chapelle &
Li 2011). That probability is computed by quadrature, not by sampling, so the logged propensity is
the probability itself.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np

from policies.errors import PolicyError
from policies.parameters import HalfLife, Parameters
from policies.per_action import PerAction, ShrunkMeans, ShrunkParameters
from policies.quadrature import largest_beta, largest_gamma, largest_gaussian
from policies.types import Feedback, FloatArray

_MOST_EVENTS = 1e9


class ThompsonBetaParameters(Parameters, frozen=True):
    """Parameters of `ThompsonBeta`."""

    prior_successes: Annotated[
        float, msgspec.Meta(ge=0.5, le=1e9, description="α of the Beta prior of every action.")
    ] = 1.0
    prior_failures: Annotated[
        float, msgspec.Meta(ge=0.5, le=1e9, description="β of the Beta prior of every action.")
    ] = 1.0
    half_life: HalfLife = None


B = TypeVar("B", bound=ThompsonBetaParameters)


class ThompsonBeta(PerAction[B]):
    """Beta–Bernoulli Thompson sampling; rewards in [0, 1].

    A reward r between 0 and 1 counts as r successes and 1 − r failures: the posterior mean is
    right for any reward in [0, 1], its spread at least as wide as the reward's own.
    """

    kind = "thompson_beta"
    learns = True
    reward_range = (0.0, 1.0)
    parameters_model = ThompsonBetaParameters

    @property
    def half_life(self) -> float | None:
        """See `PerAction.half_life`."""
        return self.parameters.half_life

    def _check_rewards(self, feedback: Sequence[Feedback]) -> None:
        for item in feedback:
            if not 0.0 <= item.reward <= 1.0:
                raise PolicyError(
                    f"feedback.reward is {item.reward!r}. {self.kind} learns rewards in [0, 1]: "
                    "rescale the reward, or use thompson_gaussian."
                )

    def _update(self, row: FloatArray, reward: float) -> None:
        row += (1.0, reward, 1.0 - reward)

    def _posterior(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        prior = self.parameters
        return prior.prior_successes + rows[:, 1], prior.prior_failures + rows[:, 2]

    def _best(self, rows: FloatArray) -> FloatArray:
        return largest_beta(*self._posterior(rows))

    def _means(self, rows: FloatArray) -> FloatArray:
        successes, failures = self._posterior(rows)
        return np.asarray(successes / (successes + failures), dtype=np.float64)


class ThompsonGammaParameters(Parameters, frozen=True):
    """Parameters of `ThompsonGamma`."""

    prior_events: Annotated[
        float, msgspec.Meta(ge=0.5, le=1e9, description="Shape of the Gamma prior of every action.")
    ] = 1.0
    prior_decisions: Annotated[
        float,
        msgspec.Meta(gt=1e-9, le=1e9, description="Rate of the Gamma prior of every action."),
    ] = 1.0
    half_life: HalfLife = None


class ThompsonGamma(PerAction[ThompsonGammaParameters]):
    """Gamma–Poisson Thompson sampling, for rewards that count events: none is negative.

    After n_a rewards that sum to s_a an action's mean is Gamma(α + s_a, β + n_a), with the prior
    α = ``prior_events`` in β = ``prior_decisions`` (Gelman et al. 2013, Bayesian Data Analysis,
    section 2.6).
    """

    kind = "thompson_gamma"
    learns = True
    reward_range = (0.0, _MOST_EVENTS)
    parameters_model = ThompsonGammaParameters

    @property
    def half_life(self) -> float | None:
        """See `PerAction.half_life`."""
        return self.parameters.half_life

    def _check_rewards(self, feedback: Sequence[Feedback]) -> None:
        for item in feedback:
            if not 0.0 <= item.reward <= _MOST_EVENTS:
                raise PolicyError(
                    f"feedback.reward is {item.reward!r}. thompson_gamma learns counts from 0 to "
                    "1e9: rescale the reward, or use thompson_gaussian."
                )

    def _update(self, row: FloatArray, reward: float) -> None:
        row[:2] += (1.0, reward)

    def _posterior(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        prior = self.parameters
        return prior.prior_events + rows[:, 1], prior.prior_decisions + rows[:, 0]

    def _best(self, rows: FloatArray) -> FloatArray:
        return largest_gamma(*self._posterior(rows))

    def _means(self, rows: FloatArray) -> FloatArray:
        events, decisions = self._posterior(rows)
        return np.asarray(events / decisions, dtype=np.float64)


class ThompsonGaussianParameters(ShrunkParameters, frozen=True):
    """Parameters of `ThompsonGaussian`."""

    exploration: Annotated[
        float, msgspec.Meta(ge=0, le=1e3, description="Factor on the posterior deviation.")
    ] = 1.0


G = TypeVar("G", bound=ThompsonGaussianParameters)


class ThompsonGaussian(ShrunkMeans[G]):
    """Gaussian Thompson sampling for rewards of any scale and origin.

    With n_a rewards and the prior worth κ, the score of an action is normal with the mean of
    `policies.per_action.ShrunkMeans` and the deviation exploration · σ̂ / √(κ + n_a):
    an empirical Bayes normal model: multiplying all rewards, or adding to them, changes no
    probability. An action never tried has the common mean and the widest deviation.
    """

    kind = "thompson_gaussian"
    learns = True
    parameters_model = ThompsonGaussianParameters

    def _best(self, rows: FloatArray) -> FloatArray:
        deviation = self.parameters.exploration * self._noise()
        scale = deviation / np.sqrt(self.parameters.prior_count + rows[:, 0])
        (pmf,) = largest_gaussian(self._means(rows)[None], scale[None])
        return np.asarray(pmf)
