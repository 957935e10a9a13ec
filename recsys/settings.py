"""How a model is trained; one setting serves catalogues of any size unless said otherwise."""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

from recsys.errors import RecsysError

ModelKind = Literal["auto", "ease", "als", "item_knn", "popularity"]
MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `recsys.training.train` reads.

    Parameters
    ----------
    kind
        "auto" is EASE up to ``ease_items`` items that anyone chose, and factors beyond.
    weights
        How much a kind of interaction says for an item; 0 leaves it out, 1 is what kinds count that
        are not named.
    least_value
        Interactions of a smaller value are left out: 4 takes only ratings of 4 and 5.
    segment
        The attribute of the context that names a user's segment, for popularity in each.
    half_life_days
        After which a choice counts half in what is popular.
    trend
        The power of an item's trend (see `recsys.popularity`) that its score is multiplied by.
    recency
        A choice of a history after which r others came weighs (1 + r)^−recency.
    ease_lambda
        None: 10 · users^(1/3).
    neighbours
        How many nearest items are kept of each.
    factors, unobserved, als_lambda, iterations, seed
        See `recsys.als`.
    """

    kind: ModelKind = "auto"
    weights: dict[str, float] = msgspec.field(default_factory=lambda: {"return": 0.0})
    least_value: float = 0.0
    segment: str | None = None
    half_life_days: float = 14.0
    trend: float = 0.75
    recency: float = 0.25
    ease_items: int = 10_000
    ease_lambda: float | None = None
    neighbours: int = 50
    factors: int = 64
    unobserved: float = 40.0
    als_lambda: float = 0.005
    iterations: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in MODEL_KINDS:
            raise RecsysError(f"train.kind is {self.kind!r}. Known: {', '.join(MODEL_KINDS)}.")
        for kind, weight in self.weights.items():
            if not 0.0 <= weight < math.inf:
                raise RecsysError(f"train.weights.{kind} is {weight!r}. Give 0 or more.")
        if not math.isfinite(self.least_value):
            raise RecsysError(f"train.least_value is {self.least_value!r}. Give a finite number.")
        for name in ("trend", "recency", "seed"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("half_life_days", "unobserved", "als_lambda"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        for name in ("ease_items", "neighbours", "factors", "iterations"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        if self.ease_lambda is not None:
            _check("ease_lambda", self.ease_lambda, self.ease_lambda > 0, "a number above 0")


def _check(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits or not math.isfinite(value):
        raise RecsysError(f"train.{name} is {value!r}. Give {wanted}.")
