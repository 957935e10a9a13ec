"""Scores candidates for a declared objective: linear by default, or any model of the caller's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from recsys import archive
from recsys.errors import RecsysError
from recsys.features import Feature

FloatArray = npt.NDArray[np.float64]


class Scorer(Protocol):
    """Whatever predicts an objective from features."""

    @property
    def features(self) -> Sequence[Feature]:
        """The columns of what it predicts from."""
        ...

    def predict(self, x: FloatArray) -> FloatArray:
        """(m,), finite, of (m, f) features, NaN where unknown; more is better."""
        ...


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["linear"]
    features: list[str]
    prior: dict[str, float]
    prior_rows: Annotated[float, msgspec.Meta(gt=0)]
    weight: Annotated[float, msgspec.Meta(ge=0)]
    rows: Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, eq=False)
class LinearScorer:
    """A regression of the objective on features, towards weights that are known beforehand.

    With x the features, a 1, and a 1 for each feature that is unknown (which then counts as 0), it
    minimises

        Σ w (r − θᵀx)² + n₀ Σ_j s_j² (θ_j − θ⁰_j)²

    where s_j² is the variance of x_j, 0 of the 1. So the prior weighs as much as n₀ rows whatever
    the units of features. It keeps sums over rows alone, added one row after the other: rows
    learned one at a time or all at once give the same bits.

    Parameters
    ----------
    features
        f of them, names distinct.
    prior
        θ⁰ by name, 0 where nothing is said: before the first row, what is scored by.
    prior_rows
        n₀.
    gram, moment
        Σ w x xᵀ (2f + 1, 2f + 1) and Σ w r x (2f + 1,).
    weight, rows
        Σ w, and how many rows.

    Raises
    ------
    RecsysError
        If names repeat, or the prior names another feature.
    """

    features: tuple[Feature, ...]
    prior: Mapping[str, float] = field(default_factory=lambda: {"relevance": 1.0})
    prior_rows: float = 100.0
    gram: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    moment: FloatArray = field(default_factory=lambda: np.zeros(0))
    weight: float = 0.0
    rows: int = 0

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise RecsysError(f"scorer.features are {names}. Name one or more, each once.")
        unknown = sorted(set(self.prior) - set(names))
        if unknown or not all(map(math.isfinite, self.prior.values())):
            raise RecsysError(
                f"scorer.prior is {dict(self.prior)}. Give finite weights of features: {names}."
            )
        if not 0 < self.prior_rows < math.inf:
            raise RecsysError(f"scorer.prior_rows is {self.prior_rows!r}. Give a number above 0.")
        width = 2 * len(names) + 1
        if self.rows == 0:
            object.__setattr__(self, "gram", np.zeros((width, width)))
            object.__setattr__(self, "moment", np.zeros(width))

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return [feature.name for feature in self.features]

    @cached_property
    def coefficients(self) -> FloatArray:
        """(2f + 1,): of each feature, of its being unknown, and of 1."""
        start = np.zeros(len(self.moment))
        start[: len(self.features)] = [self.prior.get(name, 0.0) for name in self.names]
        if self.weight == 0.0:
            return start
        squares = np.diag(self.gram) / self.weight
        variance = squares - (self.gram[-1] / self.weight) ** 2
        # What never varied is told from the 1 by nothing but a trace of the prior.
        penalty = self.prior_rows * np.maximum(variance, np.where(squares > 0, 1e-9 * squares, 1.0))
        penalty[-1] = 0.0
        step = np.linalg.solve(self.gram + np.diag(penalty), self.moment - self.gram @ start)
        return np.asarray(start + step)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Scorer.predict`."""
        return np.asarray(np.einsum("mf,f->m", _widened(x), self.coefficients))

    def learned(
        self, x: FloatArray, reward: FloatArray, weight: FloatArray | None = None
    ) -> LinearScorer:
        """The scorer after n more rows.

        Parameters
        ----------
        x
            (n, f) features, NaN where unknown, as `recsys.slate.SlateTrace.inputs` gives them.
        reward
            (n,), in the unit of the objective.
        weight
            (n,), 0 or more; None: 1 each. 1 / the chance of being looked at, where that depends on
            the position.

        Raises
        ------
        RecsysError
            If shapes differ, or a reward or weight is not such a number.
        """
        w = np.ones(len(reward)) if weight is None else weight
        shapes = (x.shape, reward.shape, w.shape)
        if shapes != ((len(x), len(self.features)), (len(x),), (len(x),)):
            raise RecsysError(
                f"x, reward and weight have shapes {shapes}. Give (n, {len(self.features)}), (n,) "
                "and (n,)."
            )
        if not (np.isfinite(reward) & np.isfinite(w) & (w >= 0)).all() or np.isinf(x).any():
            raise RecsysError(
                "a reward or feature is not finite, or a weight below 0. Leave out rows whose "
                "outcome is not known yet."
            )
        gram, moment, total = self.gram.copy(), self.moment.copy(), self.weight
        for row, r, each in zip(_widened(x), reward.tolist(), w.tolist(), strict=True):
            gram += each * np.outer(row, row)
            moment += each * r * row
            total += each
        return replace(self, gram=gram, moment=moment, weight=total, rows=self.rows + len(reward))

    def dumps(self) -> bytes:
        """Its bytes; features are kept by name."""
        state = _State(
            "linear", self.names, dict(self.prior), self.prior_rows, self.weight, self.rows
        )
        arrays = {"gram": self.gram, "moment": self.moment}
        return archive.pack(msgspec.to_builtins(state), arrays)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        return hashlib.sha256(self.dumps()).hexdigest()


def load_scorer(data: bytes, features: Sequence[Feature]) -> LinearScorer:
    """Read a scorer's bytes.

    Parameters
    ----------
    features
        Those that it was made with, in the same order: code is never kept.

    Raises
    ------
    RecsysError
        If the bytes were truncated or altered, are no linear scorer, or of other features.
    """
    values, arrays = archive.unpack(data)
    try:
        state = msgspec.convert(values, _State)
    except msgspec.ValidationError as error:
        raise RecsysError(f"scorer.values: {error}. Learn anew.") from error
    names = [feature.name for feature in features]
    if names != state.features:
        raise RecsysError(
            f"the scorer was made with features {state.features} and is given {names}. Give the "
            "same, in the same order, or learn anew."
        )
    width = 2 * len(names) + 1
    gram, moment = arrays.get("gram"), arrays.get("moment")
    if gram is None or moment is None or gram.shape != (width, width) or moment.shape != (width,):
        raise RecsysError(f"scorer.arrays do not fit {len(names)} features. Learn anew.")
    if not (np.isfinite(gram).all() and np.isfinite(moment).all()):
        raise RecsysError("scorer.arrays hold numbers that are not finite. Learn anew.")
    return LinearScorer(
        tuple(features),
        state.prior,
        state.prior_rows,
        gram.astype(np.float64),
        moment.astype(np.float64),
        state.weight,
        state.rows,
    )


def _widened(x: FloatArray) -> FloatArray:
    """(n, 2f + 1): features, 0 where unknown; whether they are; and 1."""
    unknown = np.isnan(x)
    known = np.where(unknown, 0.0, x)
    return np.concatenate([known, unknown.astype(np.float64), np.ones((len(x), 1))], axis=1)
