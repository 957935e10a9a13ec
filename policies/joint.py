"""One ridge regression for all actions, of what the context and the action's features say together.

A decision's vector is the Kronecker product of the action's columns f and the context's x, each
with its intercept: hence it holds x, f and every product of the two, and a new action is known by
its features before it was ever tried. With ``hybrid`` sharing each action has a column of its own
in f beside its features: then it also has coefficients of its own, which the penalty keeps small
until its own rewards say otherwise (the hybrid model of Li et al. 2010, section 3.2, as one ridge
regression).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from policies.disjoint import Discount, Prediction, Settings
from policies.encoding import Column, Encoder
from policies.errors import PolicyError
from policies.ridge import LARGEST_SQUARE, Rewards, Ridge, Rows, Sums
from policies.snapshots import Array, Snapshot
from policies.types import (
    LARGEST_NUMBER,
    Action,
    Context,
    Feedback,
    FloatArray,
    action_ids,
)

_CHUNK_ROWS = 4_096
_ITSELF = "action id"  # no attribute of an action: those are checked to be named otherwise


class _State(msgspec.Struct, forbid_unknown_fields=True):
    columns: list[Column]
    action_columns: list[Column]
    rewards: Rewards
    sums: Sums


class Joint:
    """See the module; columns are laid out as (the action's, the context's)."""

    def __init__(self, settings: Settings, *, hybrid: bool) -> None:
        self._settings = settings
        self._hybrid = hybrid
        self._discount = Discount.of(settings.half_life)
        self._begin((), ())

    def _begin(self, columns: Sequence[Column], action_columns: Sequence[Column]) -> None:
        settings = self._settings
        most = settings.max_categories
        self._encoder = Encoder(settings.features, most, columns, settings.interactions)
        # An action's own column is a category like others, but there may be many actions.
        self._actions = Encoder(None, 1 << 20 if self._hybrid else most, action_columns)
        self._rewards = Rewards()
        self._ridge = Ridge(self._encoder.width * self._actions.width, settings.l2, rows=1)

    @property
    def common(self) -> float:
        """m."""
        return self._rewards.origin + self._rewards.centre

    @property
    def noise(self) -> float:
        """σ̂."""
        rewards = self._rewards
        if not rewards.weight:
            return 1.0
        return float((self._ridge.attained(rewards.centre) / rewards.weight) ** 0.5)

    @property
    def weight(self) -> float:
        """See `policies.disjoint.Predictor.weight`."""
        return self._rewards.weight

    def predict(self, context: Context, actions: Sequence[Action], *, spread: bool) -> Prediction:
        """Of one context: means (k,), counted from `common`, and variances (k,)."""
        action_ids(actions)
        x, unseen = self._encoder.encode(context)
        return self._predict(x[None], np.array([unseen]), actions, spread=spread, one=True)

    def predict_many(
        self, contexts: Sequence[Context], actions: Sequence[Action], *, spread: bool
    ) -> Iterator[tuple[slice, Prediction]]:
        """Of n contexts, some thousands at a time."""
        action_ids(actions)
        for start in range(0, len(contexts), _CHUNK_ROWS):
            some = slice(start, min(start + _CHUNK_ROWS, len(contexts)))
            x, unseen = self._encoder.encode_many(contexts[some])
            yield some, self._predict(x, unseen, actions, spread=spread, one=False)

    def _predict(
        self,
        x: FloatArray,
        unseen: FloatArray,
        actions: Sequence[Action],
        *,
        spread: bool,
        one: bool,
    ) -> Prediction:
        f, unseen_action = self._encode_actions(actions)
        n, k = len(x), len(f)
        mean, variance = np.empty((n, k)), np.zeros((n, k))
        theta = self._ridge.coefficients[0]
        centred = (theta[0] - self._rewards.centre * theta[1]).reshape(f.shape[1], x.shape[1])
        np.matmul(x, (f @ centred).T, out=mean)
        if spread:
            for row in range(n) if n < k else ():
                seen = (f[:, :, None] * x[row]).reshape(k, -1)
                variance[row] = np.einsum("kd,kd->k", seen @ self._ridge.covariance[0], seen)
            for position in range(k) if n >= k else ():
                seen = (x[:, None, :] * f[position][:, None]).reshape(n, -1)
                product = seen @ self._ridge.covariance[0]
                np.einsum("nd,nd->n", product, seen, out=variance[:, position])
            lengths, own = (x * x).sum(axis=1), (f * f).sum(axis=1)
            news = unseen[:, None] * (own + unseen_action) + lengths[:, None] * unseen_action
            variance += news / self._settings.l2
        return Prediction(mean[0], variance[0]) if one else Prediction(mean, variance)

    def _encode_actions(self, actions: Sequence[Action]) -> tuple[FloatArray, FloatArray]:
        encoded = [self._actions.encode(self._described(action)) for action in actions]
        return np.array([f for f, _ in encoded]), np.array([unseen for _, unseen in encoded])

    def _described(self, action: Action) -> Context:
        return {**action.features, _ITSELF: action.id} if self._hybrid else action.features

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Ridge updates in the order given; columns grow as they are met."""
        for item in feedback:
            (drawn,) = (action for action in item.actions if action.id == item.action)
            x = self._grown(self._encoder, item.context, of_action=False)
            f = self._grown(self._actions, self._described(drawn), of_action=True)
            reward = self._rewards.counted(float(item.reward))
            self._ridge.update(0, np.outer(f, x).ravel(), reward)
            self._ridge.keep_positive(0, self._least)
            self._rewards.add(reward)
            if self._discount and self._rewards.decisions % self._discount.period == 0:
                self._ridge.discount(self._discount.factor)
                self._rewards.discount(self._discount.factor)

    @property
    def _least(self) -> float:
        return 1.0 / (self._settings.l2 + LARGEST_SQUARE * (self._rewards.decisions + 1))

    def _grown(self, encoder: Encoder, context: Context, *, of_action: bool) -> FloatArray:
        """The columns of a context or an action, once those that it needs have grown."""
        x, unseen = encoder.encode(context)
        if unseen > 0.0:
            known = self._layout()
            encoder.grow(context)
            width = self._encoder.width
            kept = (known[0][:, None] * width + known[1]).ravel()
            self._ridge.widen(kept, self._actions.width * width)
            x, _ = encoder.encode(context)
        for column, factor in encoder.widen_units(context, x):
            rows, columns = self._layout()
            if of_action:
                rows = rows[column : column + 1]
            else:
                columns = columns[column : column + 1]
            for index in (rows[:, None] * self._encoder.width + columns).ravel().tolist():
                self._ridge.rescale(index, factor)
                self._ridge.keep_positive(0, self._least)
        return x

    def _layout(self) -> tuple[Rows, Rows]:
        return np.arange(self._actions.width), np.arange(self._encoder.width)

    def state(self) -> dict[str, Any]:
        """See `policies.disjoint.Predictor.state`."""
        state = _State(
            columns=list(self._encoder.columns),
            action_columns=list(self._actions.columns),
            rewards=self._rewards,
            sums=self._ridge.sums,
        )
        return dict(msgspec.to_builtins(state))

    def arrays(self) -> dict[str, Array]:
        """See `policies.disjoint.Predictor.arrays`."""
        return self._ridge.arrays("")

    def restore(self, snapshot: Snapshot) -> None:
        """See `policies.disjoint.Predictor.restore`."""
        state = snapshot.state_as(_State)
        self._begin(state.columns, state.action_columns)
        if not abs(state.rewards.origin) < LARGEST_NUMBER:
            raise PolicyError(f"snapshot.state.rewards: {state.rewards.origin!r} is no reward.")
        self._rewards = state.rewards
        self._ridge.restore(snapshot, "", 1, self._ridge.width, state.sums)
