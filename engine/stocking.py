"""Shelves in step with the store: items as they change."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from engine.decide import Serving
from engine.shelf import Shelf, restocked
from engine.store import Store
from engine.store import read as ask
from recsys.catalogue import Catalogue


def stocked(store: Store, serving: Serving, before: Shelf | None) -> Serving:
    """What serves, with a shelf of the items that are stored by now; none without slates.

    What ``before`` holds is not read again, unless items are declared otherwise.
    """
    items = serving.workspace.items
    if not serving.workspace.slates:
        return replace(serving, shelf=None)
    if before is None or before.catalogue.schema != items.schema:
        before = Shelf(
            Catalogue.empty(items.schema),
            models=before.models if before else {},
            scorers=before.scorers if before else {},
        )
    change, news = store.read(partial(ask.items_after, change=before.change))
    shelf = restocked(before, news, change) if news else before
    return serving if shelf is serving.shelf else replace(serving, shelf=shelf)
