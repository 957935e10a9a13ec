"""A trained model: what is popular, which items go together, and what a history says of items.

A model knows the items that somebody chose. `recsys.bound.bind` puts it beside a catalogue, whose
items may be others by then: what it does not know enters by its content.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from recsys import archive
from recsys.affinity import Affinity, DenseWeights, Factors, Floats, NearestItems
from recsys.als import Ridge
from recsys.call import Interaction
from recsys.catalogue import ItemIndex
from recsys.errors import RecsysError
from recsys.popularity import Popularity
from recsys.retrieval import Index
from recsys.settings import TrainSettings

AffinityKind = Literal["ease", "als", "item_knn", "popularity"]


@dataclass(frozen=True, eq=False)
class Adopted:
    """Items that came after the training, as mixtures of items that the model was trained on.

    Parameters
    ----------
    index
        Of their f ids, in the order in which they came.
    items, weights
        (f, c) items of the model and (f, c) weights, 0 for none.
    """

    index: ItemIndex
    items: npt.NDArray[np.int32]
    weights: Floats


MIXTURE = 10
"""Items of the model that one which it was not trained on is a mixture of."""


def mixture_weights(similarities: npt.NDArray[np.floating]) -> Floats:
    """(…, c) weights of the most similar: s² / Σ s, so that what is like none scores low."""
    total = similarities.sum(axis=-1, keepdims=True)
    return np.asarray(similarities**2 / np.maximum(total, 1e-12), np.float32)


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a model is no array."""

    settings: TrainSettings
    affinity: AffinityKind
    trained_at: int
    catalogue_digest: str
    parent: str | None
    popularity_at: int
    segments: tuple[str, ...]
    ids: tuple[str, ...]
    adopted_ids: tuple[str, ...]
    alpha: float
    system_others: int


@dataclass(frozen=True, eq=False)
class Model:
    """Start at `recsys.training.train` or `load_model`.

    Parameters
    ----------
    trained_at
        Microseconds since 1970, UTC: the last interaction that it was trained on.
    catalogue_digest
        Of the catalogue that it was trained with.
    parent
        Digest of the model that it was updated from, None if it was trained.
    index
        Of the ids of its n items.
    popularity
        Of its n items, then of those adopted.
    nearest
        Of each item those that the same users chose.
    repeat_days
        (n,), the median days after which users chose an item again; NaN where none did.
    """

    settings: TrainSettings
    trained_at: int
    catalogue_digest: str
    parent: str | None
    index: ItemIndex
    popularity: Popularity
    nearest: NearestItems
    repeat_days: npt.NDArray[np.float64]
    affinity: Affinity | None
    adopted: Adopted

    @property
    def kind(self) -> AffinityKind:
        """How it scores items by a history."""
        if isinstance(self.affinity, DenseWeights):
            return "ease"
        if isinstance(self.affinity, Factors):
            return "als"
        return "popularity" if self.affinity is None else "item_knn"

    @property
    def size(self) -> int:
        """n."""
        return len(self.index.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model's bytes, in hexadecimal."""
        return hashlib.sha256(self.dumps()).hexdigest()

    def dumps(self) -> bytes:
        """The model's bytes, as `recsys.archive` lays them out."""
        factors = self.affinity if isinstance(self.affinity, Factors) else None
        state = _State(
            self.settings,
            self.kind,
            self.trained_at,
            self.catalogue_digest,
            self.parent,
            self.popularity.at,
            self.popularity.segments,
            self.index.ids,
            self.adopted.index.ids,
            factors.system.alpha if factors else 0.0,
            factors.system.others if factors else 0,
        )
        arrays: dict[str, npt.NDArray[Any]] = {
            "counts": self.popularity.counts,
            "recent": self.popularity.recent,
            "by_segment": self.popularity.by_segment,
            "nearest_items": self.nearest.items,
            "nearest_similarities": self.nearest.similarities,
            "repeat_days": self.repeat_days,
            "adopted_items": self.adopted.items,
            "adopted_weights": self.adopted.weights,
        }
        if isinstance(self.affinity, DenseWeights):
            arrays["ease"] = self.affinity.matrix
        if factors is not None:
            arrays |= {
                "rotation": factors.index.rotation,
                "head": factors.index.head,
                "tail": factors.index.tail,
                "gram": factors.system.gram,
            }
        return archive.pack(msgspec.to_builtins(state), arrays)

    def history(
        self, interactions: Sequence[Interaction], now: int
    ) -> tuple[tuple[str, ...], Floats]:
        """What of a history, oldest first, speaks for items: distinct ids, the last first, weights.

        Each weighs what its kind does, and (1 + r)^−recency of it if r others came later. Of what
        came at one time none is later, and what came after ``now`` counts as coming then.
        """
        weights = self.settings.weights
        found: dict[str, tuple[float, int]] = {}
        for interaction in reversed(interactions):
            weight = weights.get(interaction.kind, 1.0)
            if weight > 0.0 and interaction.value >= self.settings.least_value:
                found.setdefault(interaction.item_id, (weight, min(interaction.at, now)))
        earlier = np.array([-at for _, at in found.values()], np.int64)
        recency = (1.0 + np.searchsorted(earlier, earlier)) ** -self.settings.recency
        of_kind = np.array([weight for weight, _ in found.values()])
        return tuple(found), (of_kind * recency).astype(np.float32)


def load_model(data: bytes | memoryview) -> Model:
    """Read a model's bytes.

    Raises
    ------
    RecsysError
        If they were truncated or altered, or are no model of this format.
    """
    values, arrays = archive.unpack(data)
    try:
        state = msgspec.convert(values, _State)
    except msgspec.ValidationError as error:
        raise RecsysError(f"model.values: {error}. Train anew.") from error
    try:
        return _model(state, arrays)
    except KeyError as error:
        raise RecsysError(f"model.arrays lacks {error}. Train anew.") from error


def open_model(path: Path) -> Model:
    """The model in a file, whose arrays stay there until they are read.

    Raises
    ------
    RecsysError
        If the file is not there, or no model.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise RecsysError(f"model file {str(path)!r} cannot be read: {error}.") from error
    return load_model(memoryview(mapped))


def _model(state: _State, arrays: dict[str, npt.NDArray[Any]]) -> Model:
    affinity: Affinity | None = None
    nearest = NearestItems(arrays["nearest_items"], arrays["nearest_similarities"])
    if state.affinity == "ease":
        affinity = DenseWeights(arrays["ease"])
    elif state.affinity == "item_knn":
        affinity = nearest
    elif state.affinity == "als":
        system = Ridge(arrays["gram"], state.alpha, state.settings.als_lambda, state.system_others)
        affinity = Factors(Index(arrays["rotation"], arrays["head"], arrays["tail"]), system)
    popularity = Popularity(
        state.popularity_at,
        state.settings.half_life_days,
        arrays["counts"],
        arrays["recent"],
        state.segments,
        arrays["by_segment"],
    )
    return Model(
        state.settings,
        state.trained_at,
        state.catalogue_digest,
        state.parent,
        ItemIndex(state.ids),
        popularity,
        nearest,
        arrays["repeat_days"],
        affinity,
        Adopted(ItemIndex(state.adopted_ids), arrays["adopted_items"], arrays["adopted_weights"]),
    )
