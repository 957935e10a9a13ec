"""Policies that keep statistics for each action and read no context."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from policies.base import ContextFree, check_feedback
from policies.errors import PolicyError
from policies.parameters import ActionId, HalfLife, Parameters
from policies.snapshots import Array, Snapshot
from policies.types import Action, Context, Feedback, FloatArray, action_ids

P = TypeVar("P", bound=Parameters)
_MEMORY = 256


class _State(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[ActionId]


class PerAction(ContextFree[P]):
    """Per-action statistics, and what follows for each eligible set, until the next learning."""

    def __init__(self, parameters: P) -> None:
        super().__init__(parameters)
        self._index: dict[str, int] = {}
        self._statistics = np.zeros((0, 3))
        self._remembered: dict[tuple[str, ...], tuple[FloatArray, FloatArray]] = {}

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray:  # noqa: ARG002
        """(k,): posterior mean reward of each action."""
        return self._known(action_ids(actions))[1].copy()

    def pmf_and_expected(
        self,
        context: Context,  # noqa: ARG002
        actions: Sequence[Action],
    ) -> tuple[FloatArray, FloatArray]:
        """See `policies.types.Policy.pmf_and_expected`."""
        pmf, means = self._known(action_ids(actions))
        return pmf.copy(), means.copy()

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Update the statistics of the action drawn, decision by decision."""
        check_feedback(feedback)
        self._check_rewards(feedback)
        factor = None if self.half_life is None else 0.5 ** (1.0 / self.half_life)
        for item in feedback:
            if factor is not None:
                self._discount(factor)
            row = self._index.setdefault(item.action, len(self._index))
            if row == len(self._statistics):
                self._statistics = np.vstack([self._statistics, np.zeros(3)])
            self._update(self._statistics[row], float(item.reward))
        self._remembered.clear()

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        state = snapshot.state_as(_State)
        self._index = {action: row for row, action in enumerate(state.actions)}
        shape = (len(self._index), 3)
        self._statistics = np.asarray(snapshot.array("statistics", "f8", shape), np.float64)
        if len(self._index) != len(state.actions) or (self._statistics[:, (0, 2)] < 0).any():
            raise PolicyError("snapshot: an action appears twice or has negative statistics.")

    def _state(self) -> dict[str, Any]:
        return {"actions": list(self._index)}

    def _arrays(self) -> dict[str, Array]:
        return {"statistics": self._statistics}

    def _probabilities(self, ids: tuple[str, ...]) -> FloatArray:
        return self._known(ids)[0].copy()

    def _known(self, ids: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
        """The pmf and the means of an eligible set; not to be changed."""
        known = self._remembered.get(ids)
        if known is None:
            rows = self._rows(ids)
            known = self._best(rows), self._means(rows)
            if len(self._remembered) >= _MEMORY:
                self._remembered.clear()
            self._remembered[ids] = known
        return known

    def _rows(self, ids: tuple[str, ...]) -> FloatArray:
        """(k, 3) statistics, zero for an action never learned from."""
        rows = np.zeros((len(ids), 3))
        for position, action in enumerate(ids):
            if action in self._index:
                rows[position] = self._statistics[self._index[action]]
        return rows

    @property
    def half_life(self) -> float | None:
        """After how many decisions a reward counts half; None for never."""
        return None

    def _discount(self, factor: float) -> None:
        """Let all statistics weigh ``factor`` of what they did."""
        self._statistics *= factor

    def _check_rewards(self, feedback: Sequence[Feedback]) -> None:
        """Refuse rewards that the posterior cannot take."""

    @abstractmethod
    def _update(self, row: FloatArray, reward: float) -> None:
        """Add one reward to a row of statistics, in place."""

    @abstractmethod
    def _best(self, rows: FloatArray) -> FloatArray:
        """(k,) probability that each is the best."""

    @abstractmethod
    def _means(self, rows: FloatArray) -> FloatArray:
        """(k,) posterior means."""


class ShrunkParameters(Parameters, frozen=True):
    """What every kind with `ShrunkMeans` takes."""

    prior_count: Annotated[
        float,
        msgspec.Meta(
            gt=0, le=1e9, description="How many rewards at the common mean the prior is worth."
        ),
    ] = 1.0
    half_life: HalfLife = None


S = TypeVar("S", bound=ShrunkParameters)


class ShrunkMeans(PerAction[S]):
    """Count, mean and squared deviations of each action, its mean shrunk to that of all.

    With n_a rewards of mean r̄_a and squared deviations M_a, all actions' mean m̄ and the prior
    worth κ rewards, an action is expected to earn (κ m̄ + n_a r̄_a) / (κ + n_a), and

        σ̂² = Σ_a [M_a + κ n_a (r̄_a − m̄)² / (κ + n_a)] / Σ_a n_a,   1 before the first reward.
    """

    @property
    def half_life(self) -> float | None:
        """See `PerAction.half_life`."""
        return self.parameters.half_life

    def _discount(self, factor: float) -> None:
        self._statistics[:, ::2] *= factor  # not the means

    def _update(self, row: FloatArray, reward: float) -> None:
        # Welford's recursion: count, mean, squared deviations.
        count, mean, squares = row
        count += 1.0
        delta = reward - mean
        mean += delta / count
        row[:] = count, mean, squares + delta * (reward - mean)

    def _means(self, rows: FloatArray) -> FloatArray:
        prior = self.parameters.prior_count
        # As a step from the common mean, so that a large common part costs no precision.
        centre = self._centre()
        count, mean = rows[:, 0], rows[:, 1]
        step = np.where(count > 0, mean - centre, 0.0)
        return np.asarray(centre + count / (prior + count) * step, dtype=np.float64)

    def _centre(self) -> float:
        count, mean = self._statistics[:, 0], self._statistics[:, 1]
        return float(count @ mean / count.sum()) if count.size else 0.0

    def _noise(self) -> float:
        if not self._statistics.size:
            return 1.0
        count, mean, squares = self._statistics.T
        prior = self.parameters.prior_count
        between = prior * count / (prior + count) * (mean - self._centre()) ** 2
        return float(np.sqrt((squares + between).sum() / count.sum()))

    def _constant(self) -> bool:
        """Whether all rewards so far were equal, told without rounding."""
        mean, squares = self._statistics[:, 1], self._statistics[:, 2]
        return bool((squares == 0.0).all() and (mean == mean[:1]).all())
