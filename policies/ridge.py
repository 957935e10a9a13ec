"""Ridge regressions, one for each action, that learn a decision at a time.

Each of the k regressions in a stack reads a vector x of d numbers, with the penalty λ = ``l2``:

    P_a = (λI + Σ w x xᵀ)⁻¹,   θ_a = P_a Σ w r x,   both sums over the decisions that drew a

updated by the Sherman–Morrison identity: with v = P_a x, g = 1/w + xᵀv and the error
e = r − θ_aᵀx made before the update, P_a ← P_a − v vᵀ / g and θ_a ← θ_a + v e / g. The weight w
is 1 but in logistic models.

Rewards are counted from m, a number common to all actions; else the penalty would draw an action
that is new towards a reward of 0, however far from all rewards that lies. Since m moves with every
reward, a second regression is kept, of the constant 1, with coefficients c_a and errors e1. As
ridge regression is linear in what it fits, that of r − m predicts (θ_a − m c_a)ᵀx with errors
e − m e1, and the sum of what the ridge objectives attain at their minimum is

    J = Σ e²/g − 2m Σ e e1/g + m² Σ e1²/g   over all n decisions, of all actions

(the recursive least squares identity, Plackett 1950). σ̂² = J / n is the deviation of rewards around
the model, and

    E = −½ (n log σ̂² + Σ log w g)

its log evidence with σ² profiled out: what tells which of several models of one log to believe,
since Σ log w g = Σ_a log det(P_a⁻¹ / λ) is the price of the directions that a model may turn to.

References
----------
Li, Chu, Langford & Schapire (2010), A Contextual-Bandit Approach to Personalized News Article
Recommendation, WWW. MacKay (1992), Bayesian Interpolation, Neural Computation 4.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dger

from policies.errors import PolicyError
from policies.snapshots import Array, Snapshot
from policies.types import FloatArray

LARGEST_SQUARE = 1.5**4
"""No number that is learned from exceeds 1.5 units, and no product of two the square of that."""

Rows = npt.NDArray[np.intp]


class Sums(msgspec.Struct, forbid_unknown_fields=True):
    """What a stack adds up over all decisions: Σ e²/g, Σ e e1/g, Σ e1²/g and Σ log w g."""

    residual: float = 0.0
    cross: float = 0.0
    one: float = 0.0
    log_gain: float = 0.0


class Ridge:
    """A stack of regressions.

    Its last row is an action never learned from: the prior. Unknown actions index it, and a new
    action copies it. Coefficients are (k + 1, 2, d): of the reward, and of 1.

    Parameters
    ----------
    width
        d.
    l2
        λ.
    rows
        k.
    """

    def __init__(self, width: int, l2: float, rows: int = 0) -> None:
        self.l2 = l2
        self.sums = Sums()
        self.covariance: FloatArray = np.repeat(np.eye(width)[None] / l2, rows + 1, axis=0)
        self.coefficients: FloatArray = np.zeros((rows + 1, 2, width))
        self._centred: FloatArray | None = None

    @property
    def width(self) -> int:
        """d."""
        return int(self.covariance.shape[-1])

    def fit(self, x: FloatArray, rows: Rows | None, centre: float) -> FloatArray:
        """(k,): (θ_a − m c_a)ᵀx of some rows; None means all but the prior."""
        centred = self._centred_on(centre)
        return np.asarray(centred[:-1].dot(x) if rows is None else centred.dot(x)[rows])

    def variance(self, x: FloatArray, rows: Rows | None) -> FloatArray:
        """(k,): xᵀ P_a x."""
        covariance = self.covariance
        if rows is not None and 2 * len(rows) < len(covariance):
            covariance, rows = covariance[rows], None
        width = self.width
        if rows is None and covariance is self.covariance:
            covariance = covariance[:-1]
        spread = covariance.reshape(-1, width).dot(x).reshape(-1, width).dot(x)
        return np.asarray(spread if rows is None else spread[rows])

    def fit_many(self, x: FloatArray, rows: Rows, centre: float) -> FloatArray:
        """(n, k): `fit` of n contexts (n, d)."""
        return np.asarray(x @ self._centred_on(centre)[rows].T)

    def variance_many(self, x: FloatArray, rows: Rows) -> FloatArray:
        """(n, k): `variance` of n contexts (n, d)."""
        spread = np.empty((len(x), len(rows)))
        for position, row in enumerate(rows):
            np.einsum("nd,nd->n", x @ self.covariance[row], x, out=spread[:, position])
        return spread

    def _centred_on(self, centre: float) -> FloatArray:
        """θ_a − m c_a, (k + 1, d), derived once after each decision learned."""
        if self._centred is None:
            self._centred = self.coefficients[:, 0] - centre * self.coefficients[:, 1]
        return self._centred

    def update(self, row: int, x: FloatArray, reward: float, weight: float = 1.0) -> None:
        """Learn one decision."""
        self._centred = None
        covariance = self.covariance[row]
        coefficients = self.coefficients[row]
        step = covariance.dot(x)
        # A context known to the last digit has a variance that rounding can bring below zero.
        gain = 1.0 / weight + max(float(x.dot(step)), 0.0)
        predicted, predicted_one = coefficients.dot(x).tolist()
        error, error_one = reward - predicted, 1.0 - predicted_one
        # In place, of the transposed views, which are in BLAS's order.
        dger(1.0 / gain, step, np.array((error, error_one)), a=coefficients.T, overwrite_a=True)
        step /= math.sqrt(gain)
        dger(-1.0, step, step, a=covariance.T, overwrite_a=True)
        sums = self.sums
        sums.residual += error * error / gain
        sums.cross += error * error_one / gain
        sums.one += error_one * error_one / gain
        sums.log_gain += math.log(gain * weight)

    def attained(self, centre: float) -> float:
        """J."""
        sums = self.sums
        return max(sums.residual + centre * (centre * sums.one - 2.0 * sums.cross), 0.0)

    def evidence(self, centre: float, weight: float) -> float:
        """E, of n = ``weight`` decisions; 0 before the first."""
        if not weight > 0.0:
            return 0.0
        variance = max(self.attained(centre) / weight, 1e-300)
        return -0.5 * (weight * math.log(variance) + self.sums.log_gain)

    def keep_positive(self, row: int | slice, least: float) -> None:
        """Undo what rounding took too much from variances, on the diagonals of some rows.

        Where no diagonal entry of P⁻¹ exceeds 1 / ``least`` no variance is less, since
        P_jj ≥ 1 / (P⁻¹)_jj in every positive definite matrix.
        """
        diagonal = self._diagonals()[row]
        np.maximum(diagonal, least, out=diagonal)

    def _diagonals(self) -> FloatArray:
        """(k + 1, d), a view."""
        covariance = self.covariance
        rows, width, _ = covariance.shape
        return covariance.reshape(rows, width * width)[:, :: width + 1]

    def add_row(self) -> None:
        """One more action, at the prior."""
        self._centred = None
        self.covariance = np.concatenate([self.covariance, self.covariance[-1:]])
        self.coefficients = np.concatenate([self.coefficients, self.coefficients[-1:]])

    def widen(self, kept: Rows, width: int) -> None:
        """Give every model ``width`` columns, those known so far at the indices ``kept``.

        The new ones are at the prior, which a column that was always zero still has.
        """
        self._centred = None
        rows, before = len(self.covariance), self.covariance
        covariance = np.zeros((rows, width, width))
        self.covariance = covariance
        self._diagonals()[...] = 1.0 / self.l2
        covariance[:, kept[:, None], kept] = before
        coefficients = np.zeros((rows, 2, width))
        coefficients[:, :, kept] = self.coefficients
        self.coefficients = coefficients

    def rescale(self, column: int, factor: float) -> None:
        """Make the models those that a column's unit, grown by ``factor`` f, would always have had.

        In the new unit row and column j of P and coefficient j are multiplied by f, but the
        penalty on the coefficient is then λ / f². Sherman and Morrison add the missing
        δ = λ (1 − 1 / f²): with p = P e_j and h = 1 / f² + δ p_j before the change of unit,

            P ← P − δ p pᵀ / h and θ ← θ − δ p θ_j / h outside j;  p_j / h, p / (f h), θ_j / (f h)

        in it. The attained objective rises by δ θ_j² / h, and Σ log w g by log h.
        """
        self._centred = None
        slack = (1.0 / factor) ** 2
        added = self.l2 * (1.0 - slack)
        covariance, coefficients = self.covariance[:-1], self.coefficients[:-1]  # not the prior
        known = covariance[:, :, column].copy()
        variance = known[:, column].copy()
        shrink = slack + added * variance
        both = coefficients[:, :, column].copy()
        covariance -= (added / shrink)[:, None, None] * known[:, :, None] * known[:, None, :]
        coefficients -= added * both[:, :, None] * (known / shrink[:, None])[:, None, :]
        moved = known / (factor * shrink)[:, None]
        covariance[:, column] = covariance[:, :, column] = moved
        covariance[:, column, column] = variance / shrink
        coefficients[:, :, column] = both / (factor * shrink)[:, None]
        reward, one = both.T
        self.sums.residual += float(np.sum(added * reward * reward / shrink))
        self.sums.cross += float(np.sum(added * reward * one / shrink))
        self.sums.one += float(np.sum(added * one * one / shrink))
        self.sums.log_gain += float(np.sum(np.log(shrink)))

    def discount(self, factor: float) -> None:
        """Let all that was learned so far weigh ``factor`` γ of what it did; the penalty stays.

        With M = (γI + (1 − γ) λ P)⁻¹ the models become M P and γ M θ. By completing the square the
        attained objective becomes γ J + (1 − γ) λ θ'ᵀθ, θ' the new coefficients.
        """
        covariance, coefficients = self.covariance[:-1], self.coefficients[:-1]
        self._centred = None
        width = self.width
        lost = (1.0 - factor) * self.l2
        system = lost * covariance
        system.reshape(len(system), -1)[:, :: width + 1] += factor
        both = np.concatenate([covariance, factor * coefficients.transpose(0, 2, 1)], axis=2)
        solved = np.linalg.solve(system, both)
        before = coefficients.copy()
        covariance[...] = 0.5 * (solved[:, :, :width] + solved[:, :, :width].transpose(0, 2, 1))
        coefficients[...] = solved[:, :, width:].transpose(0, 2, 1)
        reward, one = coefficients[:, 0], coefficients[:, 1]
        sums = self.sums
        sums.residual = factor * sums.residual + lost * float(np.sum(reward * before[:, 0]))
        sums.cross = factor * sums.cross + lost * float(np.sum(reward * before[:, 1]))
        sums.one = factor * sums.one + lost * float(np.sum(one * before[:, 1]))
        sums.log_gain *= factor

    def arrays(self, name: str) -> dict[str, Array]:
        """What a snapshot keeps beside `sums`, under names that begin with ``name``."""
        return {
            f"{name}covariance": self.covariance[:-1],
            f"{name}coefficients": self.coefficients[:-1],
        }

    def restore(self, snapshot: Snapshot, name: str, rows: int, width: int, sums: Sums) -> None:
        """Take the state of a snapshot.

        Raises
        ------
        PolicyError
            If no regressions can have that state.
        """
        numbers = (sums.residual, sums.cross, sums.one, sums.log_gain)
        if not all(map(math.isfinite, numbers)) or min(sums.residual, sums.one) < 0.0:
            raise PolicyError(f"snapshot.state: {sums} are no sums of squares.")
        covariance = snapshot.array(f"{name}covariance", "f8", (rows, width, width))
        if (np.einsum("kdd->kd", covariance) <= 0.0).any():
            raise PolicyError(
                f"snapshot.arrays.{name}covariance holds a variance that is not positive."
            )
        coefficients = snapshot.array(f"{name}coefficients", "f8", (rows, 2, width))
        self.__init__(width, self.l2, rows)  # type: ignore[misc]  # begin anew, then fill
        self.covariance[:-1] = covariance
        self._centred = None
        self.coefficients[:-1] = coefficients
        self.sums = sums


class Rewards(msgspec.Struct, forbid_unknown_fields=True):
    """How many rewards there were, and their mean.

    Rewards are counted from the first one, the origin: where all share a large part, the digits
    that tell them apart survive the subtraction of their mean.
    """

    decisions: int = 0
    weight: float = 0.0
    origin: float = 0.0
    total: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.weight, self.origin, self.total)
        if self.decisions < 0 or self.weight < 0.0 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"rewards are {numbers} of {self.decisions} decisions")

    @property
    def centre(self) -> float:
        """m, counted from the origin."""
        return self.total / self.weight if self.weight else 0.0

    def counted(self, reward: float) -> float:
        """A reward to learn from, counted from the origin."""
        if not self.decisions:
            self.origin = reward
        return reward - self.origin

    def add(self, counted: float) -> None:
        """Take note of a reward that was learned from."""
        self.decisions += 1
        self.weight += 1.0
        self.total += counted

    def discount(self, factor: float) -> None:
        """Let all rewards so far weigh ``factor`` of what they did."""
        self.weight *= factor
        self.total *= factor
