"""Ridge contextual bandits: LinUCB, linear Thompson sampling with its exact pmf, SquareCB, greedy.

Each kind turns the means r̂_a(x) that its regressions predict, and the deviations σ̂ √(xᵀP_a x),
into a pmf (`policies.ridge`). The exploration bonus is free of scale: a multiple of these
deviations, σ̂ being that of rewards around the model. So one ``alpha`` serves clicks and revenues
alike: multiplying all rewards, or adding to them, changes no probability. Before the first
decision σ̂ is 1.

``sharing`` says whether actions have models of their own, of the context alone
(`policies.disjoint`), or one model of context and action features together (`policies.joint`).

References
----------
Li, Chu, Langford & Schapire (2010), A Contextual-Bandit Approach to Personalized News Article
Recommendation, WWW. Agrawal & Goyal (2013), Thompson Sampling for Contextual Bandits with Linear
Payoffs, ICML. Russac, Vernade & Cappé (2019), Weighted Linear Bandits for Non-Stationary
Environments, NeurIPS.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from operator import add
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np

from policies.base import BasePolicy, check_feedback
from policies.disjoint import Disjoint, Prediction, Predictor
from policies.fourier import LEAST
from policies.joint import Joint
from policies.parameters import HalfLife, Parameters
from policies.quadrature import largest_gaussian
from policies.snapshots import Array, Snapshot
from policies.types import Action, Context, Feedback, FloatArray


class ModelParameters(Parameters, frozen=True):
    """Parameters of every kind with a model for each action."""

    l2: Annotated[
        float, msgspec.Meta(ge=1e-9, le=1e9, description="Ridge penalty λ on every coefficient.")
    ] = 1.0
    features: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="Context attributes to read; null reads all that are given."),
    ] = None
    interactions: Annotated[
        tuple[tuple[str, str], ...],
        msgspec.Meta(
            max_length=64, description="Pairs of context attributes that are read multiplied, too."
        ),
    ] = ()
    max_categories: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=1024, description="Strings of one attribute that have columns of their own."
        ),
    ] = 64
    fourier: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1024,
            description="Random Fourier features beside the columns, for curves and interactions.",
        ),
    ] = 0
    seed: Annotated[
        int, msgspec.Meta(ge=0, le=2**53, description="Of the Fourier features' frequencies.")
    ] = 0
    half_life: HalfLife = None

    def __post_init__(self) -> None:
        if self.features is not None and len(set(self.features)) != len(self.features):
            raise ValueError("features holds a name twice. Name each attribute once")
        if 0 < self.fourier < LEAST:
            raise ValueError(f"fourier is {self.fourier}. Give 0 for none, or at least {LEAST}")
        pairs = [tuple(sorted(pair)) for pair in self.interactions]
        if len(set(pairs)) != len(pairs):
            raise ValueError("interactions holds a pair twice. Name each once")
        read = self.features
        if read is not None and not {name for pair in pairs for name in pair} <= set(read):
            raise ValueError("interactions names an attribute that features leaves out")


class RidgeParameters(ModelParameters, frozen=True):
    """Parameters of ridge kinds; all that `LinGreedy` has."""

    sharing: Annotated[
        Literal["disjoint", "shared", "hybrid"],
        msgspec.Meta(
            description="A model for each action; one that reads action features too; or both."
        ),
    ] = "disjoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fourier and self.sharing != "disjoint":
            raise ValueError(
                f"fourier is {self.fourier} with sharing {self.sharing!r}, whose products it "
                "cannot read. Give fourier 0, or sharing disjoint"
            )


class LinearParameters(RidgeParameters, frozen=True):
    """Parameters of `LinUCB` and `LinTS`."""

    alpha: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e3, description="Exploration, in residual standard deviations of the reward."
        ),
    ] = 1.0


class AdaptiveParameters(ModelParameters, frozen=True):
    """Parameters of `AdaptiveUCB`: those of `LinUCB`, with defaults that need no tuning."""

    fourier: Annotated[
        int,
        msgspec.Meta(
            ge=LEAST, le=1024, description="Random Fourier features of the model of curves."
        ),
    ] = 256
    alpha: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e3, description="Exploration, in residual standard deviations of the reward."
        ),
    ] = 1.5


class SquareCBParameters(RidgeParameters, frozen=True):
    """Parameters of `LinSquareCB`."""

    gamma: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e6, description="Greed: how fast a gap in expected reward takes probability."
        ),
    ] = 1.0


R = TypeVar("R", bound=ModelParameters)


class Modelled(BasePolicy[R]):
    """Ridge models; subclasses turn what they predict into a pmf."""

    learns = True
    explores: ClassVar[bool] = True  # whether deviations are read

    def __init__(self, parameters: R) -> None:
        super().__init__(parameters)
        self._models = self._new_models()
        self._scale: float | None = None

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,), see the class."""
        predicted = self._models.predict(context, actions, spread=self.explores)
        return self._choose_one(predicted)

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray]:
        """See `policies.types.Policy.pmf_and_expected`."""
        predicted = self._models.predict(context, actions, spread=self.explores)
        return self._choose_one(predicted), predicted.mean + self._models.common

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k): `pmf` by matrix products over all contexts."""
        pmf = np.empty((len(contexts), len(actions)))
        for some, predicted in self._models.predict_many(contexts, actions, spread=self.explores):
            pmf[some] = self._choose(predicted.mean, self._deviation(predicted))
        return pmf

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): r̂_a(x), in the reward's unit."""
        predicted = self._models.predict(context, actions, spread=False)
        return np.asarray(predicted.mean + self._models.common)

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Ridge updates in the order given; columns and actions grow as they are met."""
        check_feedback(feedback)
        self._models.learn(feedback)
        self._scale = None

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        self._models.restore(snapshot)
        self._scale = None

    def _state(self) -> dict[str, Any]:
        return self._models.state()

    def _arrays(self) -> dict[str, Array]:
        return self._models.arrays()

    def _choose_one(self, predicted: Prediction) -> FloatArray:
        """`_choose` of one context: (k,)."""
        (pmf,) = self._choose(predicted.mean[None], self._deviation(predicted)[None])
        return np.asarray(pmf)

    def _new_models(self) -> Predictor:
        parameters = self.parameters
        sharing = parameters.sharing if isinstance(parameters, RidgeParameters) else "disjoint"
        if sharing == "disjoint":
            return Disjoint(parameters)
        return Joint(parameters, hybrid=sharing == "hybrid")

    @abstractmethod
    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        """(n, k) pmfs from (n, k) predicted means, counted from m, and deviations."""

    @property
    def _exploration(self) -> float:
        """Deviations counted for one."""
        return 1.0

    @property
    def _unit(self) -> float:
        """What one deviation is, in the reward's unit; derived once after each batch learned."""
        if self._scale is None:
            self._scale = self._exploration * self._models.noise
        return self._scale

    def _deviation(self, predicted: Prediction) -> FloatArray:
        if not self.explores:
            return predicted.variance
        # Rounding can bring the variance of a well-known context a hair below zero.
        return np.asarray(self._unit * np.sqrt(np.maximum(predicted.variance, 0.0)))


L = TypeVar("L", bound=LinearParameters | AdaptiveParameters)


class _Bounded(Modelled[L]):
    """Ridge kinds that explore by α deviations."""

    @property
    def _exploration(self) -> float:
        return self.parameters.alpha


class _UpperBound(_Bounded[L]):
    """The largest upper bound, ties sharing alike."""

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        return _largest(mean + deviation, np.abs(mean) + deviation)

    def _choose_one(self, predicted: Prediction) -> FloatArray:
        # Over the few actions of a slot lists are quicker than arrays.
        means, unit = predicted.mean.tolist(), self._unit
        deviations = [unit * math.sqrt(v) if v > 0.0 else 0.0 for v in predicted.variance.tolist()]
        score = list(map(add, means, deviations))
        slack = _TIE * max(map(add, map(abs, means), deviations))
        return _sharing(score, max(score) - slack)


class LinUCB(_UpperBound[LinearParameters]):
    """Linear upper confidence bounds: the action with the largest r̂_a(x) + α σ̂ √(xᵀP_a x).

    The pmf is a point mass, ties sharing alike: exploration comes from the bonus, and the
    support that evaluation needs from the exploration floor. Scores within 1e-9 of the largest
    magnitude, both counted from m, are ties, so that rounding favours nobody.
    """

    kind = "lin_ucb"
    parameters_model = LinearParameters


class AdaptiveUCB(_UpperBound[AdaptiveParameters]):
    """`LinUCB` by the model that the log's evidence prefers: of no context, of lines, or of curves.

    Three models learn from every decision: an intercept alone; the encoded context; the encoded
    context with ``fourier`` random Fourier features. That of the greatest evidence (see
    `policies.ridge`) predicts, its bonus being α σ̂ √(xᵀP_a x) as ever: where curves tell nothing,
    the directions that they add are not explored.
    """

    kind = "adaptive_ucb"
    parameters_model = AdaptiveParameters

    def _new_models(self) -> Predictor:
        return Disjoint(self.parameters, nested=True)


class LinTS(_Bounded[LinearParameters]):
    """Linear Thompson sampling: scores are independent normals N(r̂_a(x), α² σ̂² xᵀP_a x).

    Each action's score is drawn on its own, so that the probability that it is the largest is a
    one-dimensional integral (`policies.quadrature.largest_gaussian`), and the pmf exact. Models
    that share nothing have independent scores anyhow. With ``sharing`` their joint posterior is
    correlated, and its P(best) no such integral: scores are then drawn, exactly so, from their own
    distributions as if these were independent.
    """

    kind = "lin_ts"
    parameters_model = LinearParameters

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        return largest_gaussian(mean, deviation)


class LinGreedy(Modelled[RidgeParameters]):
    """The action with the largest r̂_a(x), ties sharing alike: it explores by its floor alone."""

    kind = "lin_greedy"
    explores = False
    parameters_model = RidgeParameters

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:  # noqa: ARG002
        return _largest(mean, np.abs(mean))

    def _choose_one(self, predicted: Prediction) -> FloatArray:
        means = predicted.mean.tolist()
        return _sharing(means, max(means) - _TIE * max(map(abs, means)))


class LinSquareCB(Modelled[SquareCBParameters]):
    """SquareCB: probability falls with the inverse of the gap to the best (Foster & Rakhlin 2020).

    With b the action of the largest r̂, gaps Δ_a = r̂_b(x) − r̂_a(x) and n decisions learned,

        p_a = 1 / (K + γ √(K n) Δ_a / σ̂) for a ≠ b,   and b the rest,

    γ = ``gamma``. The paper's learning rate grows with √(K n) too; gaps are counted in residual
    deviations, so that the reward's unit does not matter. Nothing ever has probability zero.

    References
    ----------
    Foster & Rakhlin (2020), Beyond UCB: Optimal and Efficient Contextual Bandits with Regression
    Oracles, ICML.
    """

    kind = "lin_squarecb"
    explores = False
    parameters_model = SquareCBParameters

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:  # noqa: ARG002
        n, k = mean.shape
        best = mean.argmax(axis=1)
        rows = np.arange(n)
        gap = mean[rows, best][:, None] - mean
        # While all rewards are equal σ̂ is 0 but for rounding, and no gap is more than that.
        magnitude = np.abs(mean).max(axis=1, keepdims=True, initial=0.0)
        noise = np.maximum(np.maximum(self._unit, _TIE * magnitude), 1e-300)
        pmf = 1.0 / (k + self._greed(k) * (gap / noise))
        pmf[rows, best] = 0.0
        pmf[rows, best] = 1.0 - np.add.reduce(pmf, axis=1)
        return np.asarray(pmf)

    def _choose_one(self, predicted: Prediction) -> FloatArray:
        means = predicted.mean.tolist()
        k, largest = len(means), max(means)
        best = means.index(largest)
        noise = max(self._unit, _TIE * max(map(abs, means)), 1e-300)
        greed = self._greed(k)
        pmf = [1.0 / (k + greed * ((largest - m) / noise)) for m in means]
        pmf[best] = 0.0
        pmf[best] = 1.0 - sum(pmf)
        return np.array(pmf)

    def _greed(self, k: int) -> float:
        return self.parameters.gamma * math.sqrt(k * self._models.weight)


_TIE = 1e-9


def _largest(score: FloatArray, magnitude: FloatArray) -> FloatArray:
    """(n, k): 1 for the largest score of each row, shared by those within 1e-9 of magnitude."""
    largest = np.maximum.reduce(score, axis=1, keepdims=True)
    slack = _TIE * np.maximum.reduce(magnitude, axis=1, keepdims=True)
    best = (score >= largest - slack).astype(np.float64)
    best /= np.add.reduce(best, axis=1, keepdims=True)
    return best


def _sharing(score: list[float], least: float) -> FloatArray:
    """(k,): the scores that reach ``least`` share alike."""
    best = [i for i, s in enumerate(score) if s >= least]
    pmf = np.zeros(len(score))
    for i in best:
        pmf[i] = 1.0 / len(best)
    return pmf
