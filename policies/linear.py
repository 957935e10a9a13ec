"""Ridge contextual bandits: LinUCB, linear Thompson sampling with its exact pmf, SquareCB, greedy.

Each action a has a ridge regression of the reward on the encoded context x (d numbers, see
`policies.encoding`), with penalty λ = ``l2``:

    P_a = (λI + Σ x xᵀ)⁻¹,   θ_a = P_a Σ r x,   both sums over the decisions that drew a

updated by the Sherman–Morrison identity: with v = P_a x, g = 1 + xᵀv and the error
e = r − θ_aᵀx made before the update, P_a ← P_a − v vᵀ / g and θ_a ← θ_a + v e / g.

Rewards are counted from m, the mean of all n of them, of all actions; else the penalty would draw
an action that is new towards a reward of 0, however far from all rewards that lies. Since m moves
with every reward, a second regression is kept, of the constant 1, with coefficients c_a and errors
e1. As ridge regression is linear in what it fits, that of r − m predicts

    r̂_a(x) = m + (θ_a − m c_a)ᵀx,   with errors e − m e1.

The exploration bonus is free of scale: a multiple of √(xᵀ P_a x) in units of σ̂, where

    σ̂² = (Σ e²/g − 2m Σ e e1/g + m² Σ e1²/g) / n   over all n decisions, of all actions,

the mean of what the ridge objectives attain at their minimum (the recursive least squares
identity, Plackett 1950). So one ``alpha`` serves clicks and revenues alike: multiplying all
rewards, or adding to them, changes no probability. Before the first decision σ̂ is 1.

Beside the encoded columns a model may read random Fourier features of them (`policies.fourier`).

An action's features are constant for that action, so a model per action can make nothing of them:
these kinds read the context alone. The kind ``vw`` reads both.

References
----------
Li, Chu, Langford & Schapire (2010), A Contextual-Bandit Approach to Personalized News Article
Recommendation, WWW. Agrawal & Goyal (2013), Thompson Sampling for Contextual Bandits with Linear
Payoffs, ICML.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from policies.base import BasePolicy, check_feedback
from policies.encoding import Column, Encoder
from policies.errors import PolicyError
from policies.fourier import LEAST, Fourier
from policies.parameters import ActionId, Parameters
from policies.quadrature import largest_gaussian
from policies.snapshots import Array, Snapshot
from policies.types import LARGEST_NUMBER, Action, Context, Feedback, FloatArray, action_ids

_CHUNK_ROWS = 16_384


class RidgeParameters(Parameters, frozen=True):
    """Parameters of every ridge kind; all that `LinGreedy` has."""

    l2: Annotated[
        float, msgspec.Meta(ge=1e-9, le=1e9, description="Ridge penalty λ on every coefficient.")
    ] = 1.0
    features: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="Context attributes to read; null reads all that are given."),
    ] = None
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

    def __post_init__(self) -> None:
        if self.features is not None and len(set(self.features)) != len(self.features):
            raise ValueError("features holds a name twice. Name each attribute once")
        if 0 < self.fourier < LEAST:
            raise ValueError(f"fourier is {self.fourier}. Give 0 for none, or at least {LEAST}")


class LinearParameters(RidgeParameters, frozen=True):
    """Parameters of `LinUCB` and `LinTS`."""

    alpha: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e3, description="Exploration, in residual standard deviations of the reward."
        ),
    ] = 1.0


class SquareCBParameters(RidgeParameters, frozen=True):
    """Parameters of `LinSquareCB`."""

    gamma: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1e6, description="Greed: how fast a gap in expected reward takes probability."
        ),
    ] = 1.0


R = TypeVar("R", bound=RidgeParameters)


class _State(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[ActionId]
    columns: list[Column]
    decisions: Annotated[int, msgspec.Meta(ge=0)]
    origin: float
    total: float
    residual: Annotated[float, msgspec.Meta(ge=0)]
    residual_cross: float
    residual_one: Annotated[float, msgspec.Meta(ge=0)]
    fourier_learned: Annotated[int, msgspec.Meta(ge=0)] = 0
    fourier_length: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class _Linear(BasePolicy[R]):
    """Ridge models stacked over actions; subclasses turn means and deviations into a pmf.

    A model reads the Fourier features first, then the encoder's columns, which grow.

    The last row of each stack is an action never learned from: the prior. Unknown actions
    index it, and a new action copies it. Coefficients are (2, k, d): of the reward, and of 1.

    Rewards are counted from the first one, the origin: where all share a large part, the digits
    that tell them apart survive the subtraction of m.
    """

    explores: ClassVar[bool] = True  # whether deviations are read

    def __init__(self, parameters: R) -> None:
        super().__init__(parameters)
        d = 1 + parameters.fourier
        self._encoder = Encoder(parameters.features, parameters.max_categories)
        self._index: dict[str, int] = {}
        self._fourier = Fourier(parameters.fourier, parameters.seed) if parameters.fourier else None
        self._covariance = np.eye(d)[None] / parameters.l2
        self._coefficients = np.zeros((2, 1, d))
        self._decisions = 0
        self._origin = 0.0
        self._total = 0.0
        self._residual = self._residual_cross = self._residual_one = 0.0
        self._centred: FloatArray | None = None
        self._scale = 0.0

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,), see the class."""
        return self.pmf_and_expected(context, actions)[0]

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray]:
        """See `policies.types.Policy.pmf_and_expected`."""
        mean, deviation = self._scores(context, actions)
        (pmf,) = self._choose(mean[None], deviation[None])
        return np.asarray(pmf), mean + self._common

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k): `pmf` by matrix products over all contexts."""
        rows = self._rows(action_ids(actions))
        pmf = np.empty((len(contexts), len(rows)))
        for start in range(0, len(contexts), _CHUNK_ROWS):
            x, unseen = self._encoder.encode_many(contexts[start : start + _CHUNK_ROWS])
            x = self._with_fourier(x)
            variance = np.zeros((len(x), len(rows)))
            if self.explores:
                for position, row in enumerate(rows):
                    variance[:, position] = np.einsum("nd,nd->n", x @ self._covariance[row], x)
            mean = x @ self._centred_coefficients()[rows].T
            deviation = self._deviation(variance, unseen[:, None])
            pmf[start : start + len(x)] = self._choose(mean, deviation)
        return pmf

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): r̂_a(x), in the reward's unit."""
        return self._scores(context, actions)[0] + self._common

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Ridge updates in the order given; columns and actions grow as they are met."""
        check_feedback(feedback)
        self._centred = None
        for item in feedback:
            x, unseen = self._encoder.encode(item.context)
            if unseen > 0.0:
                self._encoder.grow(item.context)
                self._widen(self._encoder.width)
                x, _ = self._encoder.encode(item.context)
            for column, factor in self._encoder.widen_units(item.context, x):
                self._rescale(column, factor)
            if self._fourier is not None:
                self._fourier.learn(x)
            self._update(self._row_of(item.action), self._with_fourier(x), float(item.reward))

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        state = snapshot.state_as(_State)
        parameters = self.parameters
        self._encoder = Encoder(parameters.features, parameters.max_categories, state.columns)
        self._index = {action: row for row, action in enumerate(state.actions)}
        k, d = len(state.actions), parameters.fourier + self._encoder.width
        moments = (state.residual, state.residual_cross, state.residual_one)
        if len(self._index) != k or not all(map(math.isfinite, (state.total, *moments))):
            raise PolicyError("snapshot.state: an action appears twice or a sum is not finite.")
        if not abs(state.origin) < LARGEST_NUMBER:
            raise PolicyError(f"snapshot.state.origin is {state.origin!r}, which is no reward.")
        covariance = snapshot.array("covariance", "f8", (k, d, d))
        if (np.einsum("kdd->kd", covariance) <= 0.0).any():
            raise PolicyError("snapshot.arrays.covariance holds a variance that is not positive.")
        coefficients = snapshot.array("coefficients", "f8", (2, k, d))
        prior = np.eye(d)[None] / parameters.l2
        self._covariance = np.concatenate([covariance, prior])
        self._coefficients = np.concatenate([coefficients, np.zeros((2, 1, d))], axis=1)
        self._decisions, self._origin, self._total = state.decisions, state.origin, state.total
        self._residual, self._residual_cross, self._residual_one = moments
        if self._fourier is not None:
            self._fourier.widen(self._encoder.columns)
            width = self._encoder.width
            self._fourier.restore(
                state.fourier_learned,
                state.fourier_length,
                np.asarray(snapshot.array("fourier_moments", "f8", (2, width)), np.float64),
                np.asarray(snapshot.array("fourier_ratio", "f8", (width,)), np.float64),
            )

    def _state(self) -> dict[str, Any]:
        state = {
            "actions": list(self._index),
            "columns": [msgspec.to_builtins(column) for column in self._encoder.columns],
            "decisions": self._decisions,
            "origin": self._origin,
            "total": self._total,
            "residual": self._residual,
            "residual_cross": self._residual_cross,
            "residual_one": self._residual_one,
        }
        if self._fourier is not None:
            state["fourier_learned"] = self._fourier.learned
            state["fourier_length"] = self._fourier.length
        return state

    def _arrays(self) -> dict[str, Array]:
        arrays: dict[str, Array] = {
            "covariance": self._covariance[:-1],
            "coefficients": self._coefficients[:, :-1],
        }
        if self._fourier is not None:
            arrays["fourier_moments"] = self._fourier.moments
            arrays["fourier_ratio"] = self._fourier.ratio
        return arrays

    @abstractmethod
    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        """(n, k) pmfs from (n, k) predicted means, counted from m, and deviations."""

    @property
    def _exploration(self) -> float:
        """Deviations counted for one."""
        return 1.0

    @property
    def _centre(self) -> float:
        """m, counted from the origin."""
        return self._total / self._decisions if self._decisions else 0.0

    @property
    def _common(self) -> float:
        """m."""
        return self._origin + self._centre

    def _scores(self, context: Context, actions: Sequence[Action]) -> tuple[FloatArray, FloatArray]:
        """Mean, counted from m, and deviation (k,) of each action's predicted reward."""
        rows = self._rows(action_ids(actions))
        x, unseen = self._encoder.encode(context)
        x = self._with_fourier(x)
        covariance, coefficients = self._covariance, self._centred_coefficients()
        if not self.explores:
            return coefficients[rows] @ x, np.zeros(len(rows))
        if 2 * len(rows) < len(covariance):
            covariance, coefficients = covariance[rows], coefficients[rows]
            return coefficients @ x, self._deviation((covariance @ x) @ x, unseen)
        variance, mean = (covariance @ x) @ x, coefficients @ x
        return mean[rows], self._deviation(variance[rows], unseen)

    def _with_fourier(self, x: FloatArray) -> FloatArray:
        """What the models read, (…, D + d), of the encoder's columns (…, d)."""
        if self._fourier is None:
            return x
        return np.concatenate([self._fourier.features(x), x], axis=-1)

    def _centred_coefficients(self) -> FloatArray:
        """θ_a − m c_a, (k, d), derived with the factor α σ̂ once after each batch learned."""
        if self._centred is None:
            self._scale = self._exploration * self._noise()
            self._centred = self._coefficients[0] - self._centre * self._coefficients[1]
        return self._centred

    def _deviation(self, variance: FloatArray, unseen: FloatArray | float) -> FloatArray:
        # Rounding can bring the variance of a well-known context a hair below zero.
        variance = np.maximum(variance + unseen / self.parameters.l2, 0.0)
        return np.asarray(self._scale * np.sqrt(variance))

    def _noise(self) -> float:
        """σ̂."""
        if not self._decisions:
            return 1.0
        centre = self._centre
        attained = self._residual + centre * (
            centre * self._residual_one - 2.0 * self._residual_cross
        )
        return math.sqrt(max(attained, 0.0) / self._decisions)

    def _rows(self, ids: tuple[str, ...]) -> npt.NDArray[np.intp]:
        return np.array([self._index.get(action, -1) for action in ids], dtype=np.intp)

    def _row_of(self, action: str) -> int:
        row = self._index.get(action)
        if row is None:
            row = self._index[action] = len(self._index)
            self._covariance = np.concatenate([self._covariance, self._covariance[-1:]])
            self._coefficients = np.concatenate(
                [self._coefficients, self._coefficients[:, -1:]], axis=1
            )
        return row

    def _widen(self, width: int) -> None:
        """Pad every model to the columns with the prior, which one never seen still has."""
        d = self.parameters.fourier + width
        if self._fourier is not None:
            self._fourier.widen(self._encoder.columns)
        _, k, before = self._coefficients.shape
        covariance = np.zeros((k, d, d))
        covariance[:, :before, :before] = self._covariance
        fresh = np.arange(before, d)
        covariance[:, fresh, fresh] = 1.0 / self.parameters.l2
        self._covariance = covariance
        self._coefficients = np.pad(self._coefficients, ((0, 0), (0, 0), (0, d - before)))

    def _rescale(self, column: int, factor: float) -> None:
        """Make the models those that a column's unit, grown by ``factor`` f, would always have had.

        In the new unit row and column j of P and coefficient j are multiplied by f, but the
        penalty on the coefficient is then λ / f². Sherman and Morrison add the missing
        δ = λ (1 − 1 / f²): with p = P e_j and h = 1 / f² + δ p_j before the change of unit,

            P ← P − δ p pᵀ / h and θ ← θ − δ p θ_j / h outside j;  p_j / h, p / (f h), θ_j / (f h)

        in it. The attained objective rises by δ θ_j² / h.
        """
        if self._fourier is not None:
            self._fourier.rescale(column, factor)
            column += self.parameters.fourier
        slack = (1.0 / factor) ** 2
        added = self.parameters.l2 * (1.0 - slack)
        covariance, coefficients = (
            self._covariance[:-1],
            self._coefficients[:, :-1],
        )  # not the prior
        known = covariance[:, :, column].copy()
        variance = known[:, column].copy()
        shrink = slack + added * variance
        reward, one = coefficients[:, :, column].copy()
        covariance -= (added / shrink)[:, None, None] * known[:, :, None] * known[:, None, :]
        coefficients -= added * np.stack([reward, one])[:, :, None] * (known / shrink[:, None])
        moved = known / (factor * shrink)[:, None]
        covariance[:, column] = covariance[:, :, column] = moved
        covariance[:, column, column] = variance / shrink
        coefficients[:, :, column] = np.stack([reward, one]) / (factor * shrink)
        self._residual += float(np.sum(added * reward * reward / shrink))
        self._residual_cross += float(np.sum(added * reward * one / shrink))
        self._residual_one += float(np.sum(added * one * one / shrink))
        self._keep_positive(covariance)

    def _update(self, row: int, x: FloatArray, reward: float) -> None:
        if not self._decisions:
            self._origin = reward
        reward -= self._origin
        covariance = self._covariance[row]
        step = covariance @ x
        # A context known to the last digit has a variance that rounding can bring below zero.
        gain = 1.0 + max(float(x @ step), 0.0)
        coefficients = self._coefficients[:, row]
        predicted, predicted_one = (coefficients @ x).tolist()
        error, error_one = reward - predicted, 1.0 - predicted_one
        coefficients[0] += step * (error / gain)
        coefficients[1] += step * (error_one / gain)
        step /= math.sqrt(gain)
        covariance -= step[:, None] * step
        self._decisions += 1
        self._keep_positive(covariance)
        self._total += reward
        self._residual += error * error / gain
        self._residual_cross += error * error_one / gain
        self._residual_one += error_one * error_one / gain

    def _keep_positive(self, covariance: FloatArray) -> None:
        """Undo what rounding took too much from variances, on the diagonals of (…, d, d).

        No number learned from exceeds 1.5 units, hence no diagonal entry of P⁻¹ exceeds
        λ + 2.25 n; and P_jj ≥ 1 / (P⁻¹)_jj in every positive definite matrix.
        """
        diagonal = np.einsum("...dd->...d", covariance)
        least = 1.0 / (self.parameters.l2 + 2.25 * self._decisions)
        np.maximum(diagonal, least, out=diagonal)


class _Bounded(_Linear[LinearParameters]):
    """Ridge kinds that explore by α deviations."""

    parameters_model = LinearParameters

    @property
    def _exploration(self) -> float:
        return self.parameters.alpha


class LinUCB(_Bounded):
    """Linear upper confidence bounds: the action with the largest r̂_a(x) + α σ̂ √(xᵀP_a x).

    The pmf is a point mass, ties sharing alike: exploration comes from the bonus, and the
    support that evaluation needs from the exploration floor. Scores within 1e-9 of the largest
    magnitude, both counted from m, are ties, so that rounding favours nobody.
    """

    kind = "lin_ucb"
    learns = True

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        return _largest(mean + deviation, np.abs(mean) + deviation)


class LinTS(_Bounded):
    """Linear Thompson sampling: scores are independent normals N(r̂_a(x), α² σ̂² xᵀP_a x).

    The models of different actions share nothing, so their scores are independent and the
    probability that each is the largest is a one-dimensional integral
    (`policies.quadrature.largest_gaussian`): the pmf is exact.
    """

    kind = "lin_ts"
    learns = True

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:
        return largest_gaussian(mean, deviation)


class LinGreedy(_Linear[RidgeParameters]):
    """The action with the largest r̂_a(x), ties sharing alike: it explores by its floor alone."""

    kind = "lin_greedy"
    learns = True
    explores = False
    parameters_model = RidgeParameters

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:  # noqa: ARG002
        return _largest(mean, np.abs(mean))


class LinSquareCB(_Linear[SquareCBParameters]):
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
    learns = True
    explores = False
    parameters_model = SquareCBParameters

    def _choose(self, mean: FloatArray, deviation: FloatArray) -> FloatArray:  # noqa: ARG002
        n, k = mean.shape
        best = mean.argmax(axis=1)
        rows = np.arange(n)
        gap = mean[rows, best][:, None] - mean
        # While all rewards are equal σ̂ is 0 but for rounding, and no gap is more than that.
        noise = max(self._scale, 1e-9 * float(np.abs(mean).max(initial=0.0)), 1e-300)
        greed = self.parameters.gamma * math.sqrt(k * self._decisions)
        pmf = 1.0 / (k + greed * (gap / noise))
        pmf[rows, best] = 0.0
        pmf[rows, best] = 1.0 - np.add.reduce(pmf, axis=1)
        return np.asarray(pmf)


def _largest(score: FloatArray, magnitude: FloatArray) -> FloatArray:
    """(n, k): 1 for the largest score of each row, shared by those within 1e-9 of magnitude."""
    largest = np.maximum.reduce(score, axis=1, keepdims=True)
    slack = 1e-9 * np.maximum.reduce(magnitude, axis=1, keepdims=True)
    best = (score >= largest - slack).astype(np.float64)
    best /= np.add.reduce(best, axis=1, keepdims=True)
    return best
