"""Small worlds of users with tastes, for the recommender's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.call import Call, Interaction
from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.interactions import Interactions

DAY = 86_400_000_000
NOW = 1_000 * DAY
GENRES = ("crime", "drama", "space")
SCHEMA = ItemSchema(
    {
        "category": "string",
        "tags": "strings",
        "price": "number",
        "compatible_with": "strings",
        "replenish_days": "number",
    },
    vector_size=3,
)


def catalogue(per_genre: int = 12) -> Catalogue:
    """Items "crime00" and so on, each with its genre's tag and a vector near its genre's axis."""
    rng = np.random.default_rng(0)
    items = []
    for axis, genre in enumerate(GENRES):
        for number in range(per_genre):
            vector = rng.normal(0.0, 0.1, 3)
            vector[axis] += 1.0
            attributes = {"category": genre, "tags": [genre, "any"], "price": 5.0 + number}
            items.append(Item(f"{genre}{number:02d}", attributes, tuple(vector.tolist())))
    return Catalogue.empty(SCHEMA).upsert(items, now=NOW)


def interactions(users: int = 150, per_user: int = 6, per_genre: int = 12) -> Interactions:
    """Each user has one genre and chooses from it, but for one choice; low numbers are popular."""
    rng = np.random.default_rng(1)
    popular = 1.0 / (1.0 + np.arange(per_genre))
    rows: list[tuple[str, str, int]] = []
    for user in range(users):
        genre = GENRES[user % 3]
        numbers = rng.choice(per_genre, per_user, replace=False, p=popular / popular.sum())
        chosen = [f"{genre}{number:02d}" for number in numbers]
        chosen[-1] = f"{GENRES[(user + 1) % 3]}{rng.integers(per_genre):02d}"
        rows += [
            (f"u{user:03d}", item_id, int(NOW - rng.integers(1, 90 * DAY))) for item_id in chosen
        ]
    return Interactions.of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def history(*item_ids: str, kind: str = "view", at: int = NOW - DAY) -> tuple[Interaction, ...]:
    return tuple(Interaction(item_id, kind, at) for item_id in item_ids)


def call(**changes: Any) -> Call:
    plain: dict[str, Any] = {
        "user_id": "u", "surface": "home", "slate": "s", "k": 5, "now": NOW, "trace_id": "t",
    }  # fmt: skip
    return Call(**{**plain, **changes})
