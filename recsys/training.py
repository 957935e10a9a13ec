"""Training a model on what users chose, and keeping it up between trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.affinity import Affinity, DenseWeights, Factors, Floats, NearestItems
from recsys.als import alpha_of, als, ridge
from recsys.catalogue import Catalogue, ItemIndex, Rows
from recsys.ease import default_lambda, ease
from recsys.errors import RecsysError
from recsys.interactions import Interactions
from recsys.item_knn import nearest_items
from recsys.model import MIXTURE, Adopted, Model, mixture_weights
from recsys.popularity import MICROSECONDS_A_DAY, popularity
from recsys.retrieval import build_index
from recsys.settings import TrainSettings

_MOST_CHOICES = 500  # of a user, the last, that make items near: a robot would make all so
_LEAST_REPEATS = 3  # an interval between repeated choices is known from as many


def train(
    catalogue: Catalogue,
    interactions: Interactions,
    settings: TrainSettings | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Model:
    """A model of what users chose of the catalogue's items.

    Parameters
    ----------
    progress
        Called with a stage and the share of it that is done.

    Raises
    ------
    RecsysError
        If no interaction counts by the settings, or none that does is with an item of the
        catalogue.
    """
    settings = settings or TrainSettings()
    tell = progress or (lambda _stage, _share: None)
    counted = _counted(interactions, settings)
    known = _of_catalogue(counted, catalogue)
    chosen = known.last_of_pairs()
    n = len(chosen.item_ids)
    weights = chosen.weights(settings.weights)
    choices = _matrix(chosen, weights)
    tell("nearest items", 0.0)
    latest = _matrix(chosen, np.where(_place_from_end(chosen) < _MOST_CHOICES, weights, 0.0))
    latest.eliminate_zeros()
    nearest = NearestItems(*nearest_items(latest, min(settings.neighbours, n)))
    tell("nearest items", 1.0)
    affinity = _affinity(choices, nearest, settings, tell)
    at = int(chosen.at[-1])
    segments = chosen.segments if settings.segment is not None else ()
    items = chosen.item.astype(np.intp)
    return Model(
        settings,
        at,
        catalogue.digest,
        None,
        ItemIndex(chosen.item_ids),
        popularity(chosen, items, n, settings.half_life_days, at, segments),
        nearest,
        _repeat_days(known, n),
        affinity,
        Adopted(ItemIndex(), np.zeros((0, MIXTURE), np.int32), np.zeros((0, MIXTURE), np.float32)),
    )


def updated(model: Model, interactions: Interactions, catalogue: Catalogue) -> Model:
    """The model after more interactions: popularity moves, and new items are adopted.

    An adopted item is scored as a mixture of the items that the same users chose. What the model
    says of a history changes with the next training only; a new user needs none, since histories
    come with the call.

    Raises
    ------
    RecsysError
        As `train`.
    """
    counted = _counted(interactions, model.settings)
    chosen = _of_catalogue(counted, catalogue).last_of_pairs()
    older = model.index.ids + model.adopted.index.ids
    fresh = [item_id for item_id in chosen.item_ids if item_id not in set(older)]
    index = ItemIndex((*older, *fresh))
    items = index.rows(chosen.item_ids)[chosen.item]
    new = np.arange(len(older), len(index.ids))
    mixed, weights = _mixtures(chosen, items, model.size, new)
    adopted = Adopted(
        ItemIndex((*model.adopted.index.ids, *fresh)),
        np.concatenate([model.adopted.items, mixed]),
        np.concatenate([model.adopted.weights, weights]),
    )
    later = model.popularity.later(chosen, items, len(index.ids))
    return replace(model, parent=model.digest, popularity=later, adopted=adopted)


def _counted(interactions: Interactions, settings: TrainSettings) -> Interactions:
    counted = interactions.counted(settings.weights, settings.least_value)
    if len(counted) == 0:
        raise RecsysError(
            f"none of {len(interactions)} interactions counts: their kinds are "
            f"{', '.join(interactions.kinds) or 'none'}, train.weights is {settings.weights}, "
            f"train.least_value {settings.least_value}. Give interactions that count."
        )
    return counted


def _of_catalogue(counted: Interactions, catalogue: Catalogue) -> Interactions:
    there = catalogue.rows(counted.item_ids) >= 0
    if not there.any():
        raise RecsysError(
            f"no interaction is with one of the catalogue's {catalogue.size} items; they are with "
            f"{counted.item_ids[0]!r} and {len(there) - 1} others. Load the catalogue they are of."
        )
    return counted if there.all() else counted.take(there[counted.item])


def _place_from_end(chosen: Interactions) -> npt.NDArray[np.intp]:
    """(m,), how many choices the user made after each."""
    order = np.argsort(chosen.user, kind="stable")
    ends = np.cumsum(np.bincount(chosen.user))
    place = np.empty(len(chosen), np.intp)
    place[order] = ends[chosen.user[order]] - 1 - np.arange(len(chosen))
    return place


def _matrix(chosen: Interactions, weights: npt.NDArray[np.float64]) -> Any:
    """Sparse (users, items) of weights (m,)."""
    from scipy import sparse  # noqa: PLC0415  training only

    shape = (len(chosen.user_ids), len(chosen.item_ids))
    return sparse.csr_array((weights, (chosen.user, chosen.item)), shape=shape)


def _affinity(
    choices: Any,
    nearest: NearestItems,
    settings: TrainSettings,
    tell: Callable[[str, float], None],
) -> Affinity | None:
    users, n = choices.shape
    kind = settings.kind
    if kind == "auto":
        kind = "ease" if n <= settings.ease_items else "als"
    if kind == "popularity":
        return None
    if kind == "item_knn":
        return nearest
    tell(kind, 0.0)
    if kind == "ease":
        weights = ease(choices, settings.ease_lambda or default_lambda(users))
        tell(kind, 1.0)
        return DenseWeights(weights)
    vectors = als(
        choices,
        factors=settings.factors,
        unobserved=settings.unobserved,
        lambda_=settings.als_lambda,
        iterations=settings.iterations,
        seed=settings.seed,
        progress=lambda share: tell("als", share),
    )
    alpha = alpha_of(choices, settings.unobserved)
    return Factors(build_index(vectors), ridge(vectors, alpha, settings.als_lambda, n))


def _repeat_days(known: Interactions, n: int) -> Any:
    """(n,), the median days between two choices of an item by one user; NaN if too few repeat."""
    order = np.lexsort((known.at, known.item, known.user))
    user, item, at = known.user[order], known.item[order], known.at[order]
    again = (user[1:] == user[:-1]) & (item[1:] == item[:-1]) & (at[1:] > at[:-1])
    days = np.diff(at)[again] / MICROSECONDS_A_DAY
    of = item[1:][again]
    order = np.lexsort((days, of))
    days, of = days[order], of[order]
    counts = np.bincount(of, minlength=n)
    starts = np.cumsum(counts) - counts
    found = np.full(n, np.nan)
    enough = np.flatnonzero(counts >= _LEAST_REPEATS)
    low, high = (counts[enough] - 1) // 2, counts[enough] // 2
    found[enough] = (days[starts[enough] + low] + days[starts[enough] + high]) / 2.0
    return found


def _mixtures(chosen: Interactions, items: Rows, size: int, new: Rows) -> tuple[Any, Floats]:
    """(f, c) items of the model that the same users chose as each new one, and (f, c) weights."""
    from scipy import sparse  # noqa: PLC0415  updates only

    mixed = np.zeros((len(new), MIXTURE), np.int32)
    weights = np.zeros((len(new), MIXTURE), np.float32)
    width = max(size, int(items.max()) + 1)
    shape = (len(chosen.user_ids), width)
    choices = sparse.csr_array((np.ones(len(items)), (chosen.user, items)), shape=shape).tocsc()
    per_item = np.maximum(1, np.diff(choices.indptr))
    together = (choices[:, new].T @ choices[:, :size]).tocsr()
    for row in range(len(new)):
        there = slice(together.indptr[row], together.indptr[row + 1])
        others = together.indices[there]
        cosine = together.data[there] / np.sqrt(per_item[new[row]] * per_item[others])
        kept = np.lexsort((others, -cosine))[:MIXTURE]
        mixed[row, : len(kept)] = others[kept]
        weights[row, : len(kept)] = mixture_weights(cosine[kept])
    return mixed, weights
