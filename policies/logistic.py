"""Logistic Thompson sampling: for rewards of 0 or 1, with its exact pmf.

Each action has a logistic regression of the reward on the context, with the penalty λ = ``l2``,
learned a decision at a time by one Newton step (the extended Kalman filter, of which the Laplace
approximation is the limit): with the log odds η that the model had predicted, p = 1 / (1 + exp −η)
and the weight w = p (1 − p), it is a ridge update (`policies.ridge`) of the working response
η + (r − p) / w. Log odds are counted from those of all rewards, m = log((½ + Σ r) / (½ + n − Σ r)),
so that an action never tried is as likely to succeed as all are, not as a coin.

References
----------
Chapelle & Li (2011), An Empirical Evaluation of Thompson Sampling, NeurIPS. MacKay (1992), The
Evidence Framework Applied to Classification Networks, Neural Computation 4. Fahrmeir (1992),
Posterior Mode Estimation by Extended Kalman Filtering, JASA 87.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from scipy.special import expit

from policies.base import check_feedback
from policies.disjoint import Disjoint, Prediction, Predictor
from policies.errors import PolicyError
from policies.linear import Modelled, ModelParameters
from policies.quadrature import largest_gaussian
from policies.ridge import Ridge
from policies.types import Action, Context, Feedback, FloatArray

_FARTHEST = 12.0  # log odds: a prediction surer than 6e-6 is learned from as if it were that sure


class LogisticParameters(ModelParameters, frozen=True):
    """Parameters of `LogisticTS`."""

    alpha: Annotated[
        float,
        msgspec.Meta(ge=0, le=1e3, description="Factor on the posterior deviation of log odds."),
    ] = 1.0


class _Logistic(Disjoint):
    """Means are log odds, counted from `common`."""

    @property
    def noise(self) -> float:
        """1: a Bernoulli reward has no scale of its own."""
        return 1.0

    @property
    def _centre(self) -> float:
        successes, weight = self._rewards.total, self._rewards.weight
        return math.log((0.5 + successes) / (0.5 + max(weight - successes, 0.0)))

    def _counted(self, reward: float) -> float:
        return reward

    def _update(self, model: Ridge, row: int, x: FloatArray, reward: float) -> None:
        fitted, fitted_one = model.coefficients[row].dot(x).tolist()
        log_odds = self._centre * (1.0 - fitted_one) + fitted
        log_odds = max(-_FARTHEST, min(log_odds, _FARTHEST))
        chance = 1.0 / (1.0 + math.exp(-log_odds))
        weight = chance * (1.0 - chance)
        model.update(row, x, log_odds + (reward - chance) / weight, weight)
        model.keep_positive(row, self._least)


class LogisticTS(Modelled[LogisticParameters]):
    """Log odds are independent normals N(m + (θ_a − m c_a)ᵀx, α² xᵀP_a x); see the module.

    The order of log odds is that of chances, so that the probability that an action has the largest
    is a one-dimensional integral (`policies.quadrature.largest_gaussian`): the pmf is exact.
    """

    kind = "logistic_ts"
    reward_range = (0.0, 1.0)
    parameters_model = LogisticParameters

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): P(r = 1), averaged over the posterior by MacKay's approximation."""
        return self._chances(self._models.predict(context, actions, spread=True))

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray]:
        """See `policies.types.Policy.pmf_and_expected`."""
        predicted = self._models.predict(context, actions, spread=True)
        return self._choose_one(predicted), self._chances(predicted)

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """One Newton step for each decision, in the order given.

        Raises
        ------
        PolicyError
            If a reward is neither 0 nor 1; then nothing was learned.
        """
        check_feedback(feedback)
        for item in feedback:
            if item.reward not in (0.0, 1.0):
                raise PolicyError(
                    f"feedback.reward is {item.reward!r}. logistic_ts learns rewards of 0 or 1: "
                    "use lin_ts, or a reward that says whether something happened."
                )
        super().learn(feedback)

    def _new_models(self) -> Predictor:
        return _Logistic(self.parameters)

    @property
    def _exploration(self) -> float:
        return self.parameters.alpha

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        return largest_gaussian(mean, deviation)

    def _chances(self, predicted: Prediction) -> FloatArray:
        log_odds = predicted.mean + self._models.common
        variance = np.maximum(predicted.variance, 0.0)
        return np.asarray(expit(log_odds / np.sqrt(1.0 + math.pi / 8.0 * variance)))
