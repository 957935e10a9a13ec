"""A ridge regression for each action, of what the context says and, if asked, of curves of it.

With several nested models, each reads some of the same columns and all learn from every decision;
the one that the log's evidence prefers predicts (see `policies.ridge`).

Fourier features are fixed by the first 64 decisions (`policies.fourier`). These are kept until
then, and models that read the features begin anew with them: nothing is lost to the measuring.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from policies.encoding import BEYOND, Column, Encoder
from policies.errors import PolicyError
from policies.fourier import WARM, Fourier
from policies.parameters import ActionId
from policies.ridge import LARGEST_SQUARE, Rewards, Ridge, Rows, Sums
from policies.snapshots import Array, Snapshot
from policies.types import LARGEST_NUMBER, Action, Context, Feedback, FloatArray, action_ids

_CHUNK_ROWS = 16_384
_FIRST_BLOCK, _LARGEST_BLOCK = 8, 1024
_REMEMBERED = 256
_DISCOUNTS = 64
_PER_COEFFICIENT = 10


class Prediction(NamedTuple):
    """Means counted from ``common``, (k,) or (n, k), and xᵀPx, zeros where it was not asked for."""

    mean: FloatArray
    variance: FloatArray


class Predictor(Protocol):
    """What the ridge kinds need of their models."""

    @property
    def common(self) -> float:
        """m: what means are counted from."""

    @property
    def noise(self) -> float:
        """σ̂, 1 before the first decision."""

    @property
    def weight(self) -> float:
        """How many decisions were learned, each as much as it still counts."""

    def predict(self, context: Context, actions: Sequence[Action], *, spread: bool) -> Prediction:
        """Of one context."""

    def predict_many(
        self, contexts: Sequence[Context], actions: Sequence[Action], *, spread: bool
    ) -> Iterator[tuple[slice, Prediction]]:
        """Of many, some at a time."""

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Learn decisions in the order given."""

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps, beside `arrays`."""

    def arrays(self) -> dict[str, Array]:
        """The arrays that a snapshot keeps."""

    def restore(self, snapshot: Snapshot) -> None:
        """Take the state of a snapshot; a PolicyError if it is none."""


class Settings(Protocol):
    """The parameters that models read; see `policies.linear.RidgeParameters`."""

    @property
    def l2(self) -> float: ...
    @property
    def features(self) -> tuple[str, ...] | None: ...
    @property
    def interactions(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def max_categories(self) -> int: ...
    @property
    def fourier(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def half_life(self) -> float | None: ...


class Discount(NamedTuple):
    """Forgetting: after every ``period`` decisions what was learned weighs ``factor`` as much."""

    period: int
    factor: float

    @classmethod
    def of(cls, half_life: float | None) -> "Discount | None":
        """Halving over a half-life, in 64 equal steps, or one a decision where that is longer."""
        if half_life is None:
            return None
        period = max(1, round(half_life / _DISCOUNTS))
        return cls(period, 0.5 ** (period / half_life))


class _State(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[ActionId]
    columns: list[Column]
    rewards: Rewards
    sums: list[Sums]
    fourier_length: float = 0.0


class Disjoint:
    """See the module.

    Vectors hold the Fourier features first, then the encoder's columns, which grow.

    Parameters
    ----------
    nested
        Whether to keep three models, of a constant, of the columns, and of columns and Fourier
        features, instead of the last alone.
    """

    def __init__(self, settings: Settings, *, nested: bool = False) -> None:
        self._settings = settings
        self._count = count = settings.fourier
        self._encoder = self._encoder_of(())
        self._fourier = Fourier(count, settings.seed) if count else None
        self._discount = Discount.of(settings.half_life)
        self._index: dict[str, int] = {}
        self._rewards = Rewards()
        # For each model where its columns begin and end.
        self._parts = [slice(0, None)]
        if nested:
            self._parts = [slice(count, count + 1), slice(count, None), *self._parts]
        self._models = [Ridge(1 if part.start else 1 + count, settings.l2) for part in self._parts]
        self._warm = np.zeros((0, 1))
        self._warm_drawn: list[tuple[int, float]] = []
        self._believed: int | None = None
        self._plans: dict[tuple[str, ...], Rows | None] = {}

    @property
    def common(self) -> float:
        """m."""
        return self._rewards.origin + self._centre

    @property
    def noise(self) -> float:
        """σ̂."""
        if not self._rewards.weight:
            return 1.0
        model = self._models[self._preferred()]
        return float((model.attained(self._rewards.centre) / self._rewards.weight) ** 0.5)

    @property
    def weight(self) -> float:
        """See `Predictor.weight`."""
        return self._rewards.weight

    def predict(self, context: Context, actions: Sequence[Action], *, spread: bool) -> Prediction:
        """Of one context: means (k,), counted from `common`, and variances (k,)."""
        rows = self._rows(action_ids(actions))
        x, unseen = self._encoder.encode(context)
        number = self._preferred()
        model, part = self._models[number], self._parts[number]
        x = self._read(x, part)
        mean = model.fit(x, rows, self._centre)
        if not spread:
            return Prediction(mean, np.zeros(len(mean)))
        variance = model.variance(x, rows)
        if unseen and part.stop is None:
            variance = variance + unseen / self._settings.l2
        return Prediction(mean, variance)

    def predict_many(
        self, contexts: Sequence[Context], actions: Sequence[Action], *, spread: bool
    ) -> Iterator[tuple[slice, Prediction]]:
        """Of n contexts, by matrix products over some thousands of them at a time."""
        ids = action_ids(actions)
        rows = np.array([self._index.get(action, -1) for action in ids], dtype=np.intp)
        number = self._preferred()
        model, part = self._models[number], self._parts[number]
        for start in range(0, len(contexts), _CHUNK_ROWS):
            some = slice(start, min(start + _CHUNK_ROWS, len(contexts)))
            x, unseen = self._encoder.encode_many(contexts[some])
            x = self._read(x, part)
            mean = model.fit_many(x, rows, self._centre)
            variance = np.zeros(mean.shape)
            if spread:
                variance = model.variance_many(x, rows)
                if part.stop is None:
                    variance += unseen[:, None] / self._settings.l2
            yield some, Prediction(mean, variance)

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Ridge updates in the order given; columns and actions grow as they are met.

        Contexts are encoded many at a time, up to the first that needs a column or a unit to
        grow; each number of a context is the same as if it had been encoded alone.
        """
        self._believed = None
        position, block = 0, _FIRST_BLOCK
        while position < len(feedback):
            some = feedback[position : position + block]
            if len(some) == 1:
                self._learn_alone(some[0])
                return
            x, unseen = self._encoder.encode_many([item.context for item in some])
            fits = (unseen == 0.0) & (np.abs(x).max(axis=1) <= BEYOND)
            ready = len(some) if fits.all() else int(fits.argmin())
            for item, row in zip(some[:ready], x[:ready], strict=True):
                self._learn_row(item, row)
            position += ready
            block = min(2 * block, _LARGEST_BLOCK)
            if ready < len(some):
                self._learn_row(some[ready], self._grown(some[ready].context))
                position, block = position + 1, _FIRST_BLOCK

    def _learn_alone(self, item: Feedback) -> None:
        x, unseen = self._encoder.encode(item.context)
        if unseen > 0.0 or np.maximum.reduce(np.abs(x)) > BEYOND:
            x = self._grown(item.context)
        self._learn_row(item, x)

    def state(self) -> dict[str, Any]:
        """See `Predictor.state`."""
        state = _State(
            actions=list(self._index),
            columns=list(self._encoder.columns),
            rewards=self._rewards,
            sums=[model.sums for model in self._models],
            fourier_length=self._fourier.length if self._fourier else 0.0,
        )
        return dict(msgspec.to_builtins(state))

    def arrays(self) -> dict[str, Array]:
        """See `Predictor.arrays`."""
        arrays: dict[str, Array] = {}
        for number, model in enumerate(self._models):
            arrays |= model.arrays(f"model_{number}_")
        if self._fourier is not None:
            arrays["fourier_ratio"] = self._fourier.ratio
            arrays["warm"] = self._warm
            arrays["warm_drawn"] = np.array(self._warm_drawn, dtype=np.float64).reshape(-1, 2)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """See `Predictor.restore`."""
        state = snapshot.state_as(_State)
        self._encoder = self._encoder_of(state.columns)
        self._index = {action: row for row, action in enumerate(state.actions)}
        if len(self._index) != len(state.actions) or len(state.sums) != len(self._models):
            raise PolicyError("snapshot.state: an action appears twice, or a model is missing.")
        if not abs(state.rewards.origin) < LARGEST_NUMBER:
            raise PolicyError(f"snapshot.state.rewards: {state.rewards.origin!r} is no reward.")
        self._rewards = state.rewards
        width = self._count + self._encoder.width
        for number, (model, sums) in enumerate(zip(self._models, state.sums, strict=True)):
            part = len(range(width)[self._parts[number]])
            model.restore(snapshot, f"model_{number}_", len(self._index), part, sums)
        if self._fourier is not None:
            self._restore_fourier(snapshot, state.fourier_length)
        self._believed = None
        self._plans.clear()

    def _restore_fourier(self, snapshot: Snapshot, length: float) -> None:
        fourier, width = self._fourier, self._encoder.width
        if fourier is None:
            return
        fourier.widen(self._encoder.columns)
        fourier.restore(
            length, np.asarray(snapshot.array("fourier_ratio", "f8", (width,)), np.float64)
        )
        kept = 0 if fourier.length else self._rewards.decisions
        drawn = np.asarray(snapshot.array("warm_drawn", "f8", (kept, 2)), np.float64).tolist()
        if kept >= WARM or any(row not in range(len(self._index)) for row, _ in drawn):
            raise PolicyError("snapshot.arrays.warm_drawn: no decisions that a length waits for.")
        self._warm = np.asarray(snapshot.array("warm", "f8", (kept, width)), np.float64)
        self._warm_drawn = [(int(row), reward) for row, reward in drawn]

    def _encoder_of(self, columns: Sequence[Column]) -> Encoder:
        settings = self._settings
        return Encoder(settings.features, settings.max_categories, columns, settings.interactions)

    @property
    def _centre(self) -> float:
        """m, counted from the origin."""
        return self._rewards.centre

    def _counted(self, reward: float) -> float:
        """The reward as it is learned."""
        return self._rewards.counted(reward)

    def _preferred(self) -> int:
        """The model that predicts."""
        if self._believed is None:
            centre, weight = self._rewards.centre, self._rewards.weight
            evidence = [model.evidence(centre, weight) for model in self._models]
            # Of few decisions evidence prefers few coefficients, and a constant that is believed
            # sees to it that only one action is learned of: it needs some for each coefficient.
            if len(evidence) > 1:
                lines = self._models[1].width * len(self._index)
                if self._rewards.decisions < _PER_COEFFICIENT * lines:
                    evidence[0] = -math.inf
            self._believed = evidence.index(max(evidence))
        return self._believed

    def _read(self, x: FloatArray, part: slice) -> FloatArray:
        """What a model reads, (…, its d), of the encoder's columns (…, d)."""
        if self._fourier is None:
            return x
        if part.start:
            start = part.start - self._count
            return x[..., start : None if part.stop is None else part.stop - self._count]
        return np.concatenate([self._fourier.features(x), x], axis=-1)

    def _rows(self, ids: tuple[str, ...]) -> Rows | None:
        """Where the models of eligible actions are; None if they are all, in order."""
        try:
            return self._plans[ids]
        except KeyError:
            pass
        rows = [self._index.get(action, -1) for action in ids]
        plan = None if rows == list(range(len(self._index))) else np.array(rows, dtype=np.intp)
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
        self._plans[ids] = plan
        return plan

    def _row_of(self, action: str) -> int:
        row = self._index.get(action)
        if row is None:
            row = self._index[action] = len(self._index)
            self._plans.clear()
            for model in self._models:
                model.add_row()
        return row

    def _grown(self, context: Context) -> FloatArray:
        """The context's columns, (d,), once those that it needs and their units have grown."""
        encoder, known = self._encoder, self._encoder.width
        encoder.grow(context)
        if encoder.width > known:
            self._widen(known)
        x, _ = encoder.encode(context)
        for column, factor in encoder.widen_units(context, x):
            if self._fourier is not None:
                self._fourier.rescale(column, factor)
                self._warm[:, column] /= factor
            for model, part in zip(self._models, self._parts, strict=True):
                if part.stop is None:
                    model.rescale(column + self._count - part.start, factor)
                    model.keep_positive(slice(0, -1), self._least)
        return x

    def _widen(self, known: int) -> None:
        width = self._encoder.width
        if self._fourier is not None:
            self._fourier.widen(self._encoder.columns)
            self._warm = np.pad(self._warm, ((0, 0), (0, width - known)))
        for model, part in zip(self._models, self._parts, strict=True):
            if part.stop is None:
                kept = np.arange(model.width)
                model.widen(kept, model.width + width - known)

    @property
    def _least(self) -> float:
        return 1.0 / (self._settings.l2 + LARGEST_SQUARE * (self._rewards.decisions + 1))

    def _learn_row(self, item: Feedback, x: FloatArray) -> None:
        row, reward = self._row_of(item.action), self._counted(float(item.reward))
        fourier = self._fourier
        for model, part in zip(self._models, self._parts, strict=True):
            self._update(model, row, self._read(x, part), reward)
        self._rewards.add(reward)
        self._forget(self._models, self._rewards.decisions)
        if self._discount and self._rewards.decisions % self._discount.period == 0:
            self._rewards.discount(self._discount.factor)
        if fourier is not None and not fourier.length:
            self._warm = np.concatenate([self._warm, x[None]])
            self._warm_drawn.append((row, reward))
            if len(self._warm) == WARM:
                fourier.measure(self._warm)
                self._begin_anew()

    def _update(self, model: Ridge, row: int, x: FloatArray, reward: float) -> None:
        model.update(row, x, reward)
        model.keep_positive(row, self._least)

    def _forget(self, models: Sequence[Ridge], decisions: int) -> None:
        if self._discount and decisions % self._discount.period == 0:
            for model in models:
                model.discount(self._discount.factor)

    def _begin_anew(self) -> None:
        """Learn the first decisions again, now that their Fourier features are known."""
        part = self._parts[-1]
        model = Ridge(self._models[-1].width, self._settings.l2, len(self._index))
        for decisions, (x, (row, reward)) in enumerate(
            zip(self._warm, self._warm_drawn, strict=True), start=1
        ):
            self._update(model, row, self._read(x, part), reward)
            self._forget([model], decisions)
        self._models[-1] = model
        self._warm, self._warm_drawn = np.zeros((0, self._encoder.width)), []
