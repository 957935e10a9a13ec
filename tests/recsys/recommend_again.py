"""Fills a fixed set of slates and prints the digest of their traces: run anew to compare.

Run as ``python -m tests.recsys.recommend_again`` under any PYTHONHASHSEED.
"""

from __future__ import annotations

import hashlib
import random

import msgspec

from recsys.bound import bind
from recsys.call import SlateKind
from recsys.plan import Calibration, Composing, Diversity, Exploration, Limit, SlatePlan
from recsys.recommend import recommend
from recsys.rules import Having, NotOwned, NotRecently
from recsys.training import train
from tests.recsys import worlds

KINDS: tuple[SlateKind, ...] = ("for_you", "similar")


def digest_of_slates() -> str:
    """SHA-256 of 60 traces: drawn and not, by embeddings and by values, of several kinds."""
    rng = random.Random(5)
    items = worlds.catalogue()
    model = bind(train(items, worlds.interactions()), items)
    plans = [
        SlatePlan(
            id="s",
            kind=kind,
            rules=(NotOwned(), NotRecently("view", 7), Having({"category": "crime"}, 0.1, "c")),
            composing=Composing(
                limits=(Limit(column="category", at_most=2), Limit(column="tags", at_most=4)),
                diversity=diversity,
                calibration=Calibration(column="tags", weight=0.4),
                exploration=Exploration(temperature=0.2, epsilon=0.1),
            ),
        )
        for kind in KINDS
        for diversity in (Diversity(), Diversity(kind="dpp"), Diversity(column="tags"))
    ]
    digest = hashlib.sha256()
    for number in range(60):
        seen = rng.sample(items.ids, 4)
        call = worlds.call(
            history=worlds.history(*seen, at=worlds.NOW - rng.randrange(20) * worlds.DAY),
            owned=tuple(rng.sample(items.ids, 3)),
            seeds=(seen[0],),
            uniforms=tuple(rng.random() for _ in range(5)) if number % 3 else (),
        )
        digest.update(msgspec.json.encode(recommend(call, plans[number % 6], items, model).trace))
    return digest.hexdigest()


if __name__ == "__main__":
    print(digest_of_slates())
