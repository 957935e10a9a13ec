"""Finds what is wrong with holdouts and experiments, all of it at once."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from experiments.buckets import UNITS_SALT
from experiments.errors import Fault
from experiments.experiment import Experiment, Holdout, Variant

NEXT_STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "draft": ("running", "ended"),
    "running": ("paused", "ended"),
    "paused": ("running", "ended"),
    "ended": (),
}
"""The states, each with those that may follow it."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SLOT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}")


def design_faults(
    holdouts: Sequence[Holdout], experiments: Sequence[Experiment]
) -> Iterator[Fault]:
    """Every fault of a design made of these, in declared order."""
    yield from _twice("holdouts", (holdout.id for holdout in holdouts))
    yield from _twice("layers", (experiment.id for experiment in experiments))
    for holdout in holdouts:
        yield from _holdout_faults(holdout)
    for experiment in experiments:
        yield from _experiment_faults(experiment)
    started = [experiment for experiment in experiments if experiment.started]
    yield from _salt_faults(holdouts, started)
    for first, second in combinations(started, 2):
        yield from _conflicts(first, second)


def _holdout_faults(holdout: Holdout) -> Iterator[Fault]:
    path = f"holdouts.{holdout.id}"
    yield from _bad_id(path, holdout.id)
    for surface in sorted(holdout.surfaces or ()):
        yield from _bad_id(f"{path}.surfaces", surface)
    if not 0 <= holdout.share < 1:
        yield Fault(f"{path}.share", holdout.share, "hold out a share in [0, 1), as in 0.05")
    if holdout.surfaces is not None and not holdout.surfaces:
        yield Fault(f"{path}.surfaces", [], "name a surface, or leave it out to mean all")
    yield from _bad_salt(path, holdout.salt)


def _experiment_faults(experiment: Experiment) -> Iterator[Fault]:
    path = path_of(experiment)
    yield from _bad_id(path, experiment.id)
    yield from _bad_id(f"{path}.layer", experiment.layer)
    yield from _bad_salt(path, experiment.salt)
    low, high = experiment.range
    if not 0 <= low < high <= 1:
        yield Fault(f"{path}.range", [low, high], "write [low, high] with 0 ≤ low < high ≤ 1")
    if not 0 <= experiment.ramp <= 1:
        yield Fault(f"{path}.ramp", experiment.ramp, "ramp to a share in [0, 1]")
    if experiment.state not in NEXT_STATES:
        known = ", ".join(NEXT_STATES)
        yield Fault(f"{path}.state", experiment.state, f"use one of {known}")
    ids = [variant.id for variant in experiment.variants]
    yield from _twice(f"{path}.variants", ids)
    for variant in experiment.variants:
        yield from _variant_faults(f"{path}.variants.{variant.id}", variant)
    # Weights that are each finite can still sum to infinity, of which each has a share of zero.
    weights = [variant.weight for variant in experiment.variants]
    if all(map(math.isfinite, weights)) and not math.isfinite(sum(weights)):
        yield Fault(f"{path}.variants", weights, "have an infinite sum: use smaller weights")
    if not experiment.slots:
        yield Fault(f"{path}.variants", ids, "let a variant decide a slot, or drop the experiment")
    if experiment.baseline is not None and experiment.baseline not in ids:
        yield Fault(f"{path}.baseline", experiment.baseline, f"name one of {', '.join(ids)}")


def _variant_faults(path: str, variant: Variant) -> Iterator[Fault]:
    yield from _bad_id(path, variant.id)
    # Written so that NaN and infinity fail too.
    if not 0 < variant.weight < float("inf"):
        yield Fault(f"{path}.weight", variant.weight, "give it a weight above 0, or remove it")
    for slot in variant.slots:
        if not _SLOT.fullmatch(slot):
            yield Fault(f"{path}.slots", slot, "name it surface.slot, as in home.layout")


def _salt_faults(holdouts: Sequence[Holdout], experiments: Sequence[Experiment]) -> Iterator[Fault]:
    """Two purposes under one salt would share their buckets, and so depend on each other."""
    uses = [("the selection of units", UNITS_SALT)]
    uses += [(f"holdouts.{holdout.id}.salt", holdout.bucket_salt) for holdout in holdouts]
    layers = {experiment.layer: experiment.layer_salt for experiment in experiments}
    uses += [(f"layers.{layer}", salt) for layer, salt in layers.items()]
    for experiment in experiments:
        path = f"{path_of(experiment)}.salt"
        uses += [(path, experiment.ramp_salt), (path, experiment.variant_salt)]
    first: dict[str, str] = {}
    for path, salt in uses:
        if salt in first:
            yield Fault(path, salt, f"serves {first[salt]} already: choose another")
        first.setdefault(salt, path)


def _conflicts(first: Experiment, second: Experiment) -> Iterator[Fault]:
    if first.layer == second.layer:
        low, high = second.range
        if low < first.range[1] and first.range[0] < high:
            yield Fault(
                f"{path_of(second)}.range",
                [low, high],
                f"overlaps {list(first.range)} of {first.id!r}: choose a free part of the layer",
            )
        return
    for slot in sorted(first.slots & second.slots):
        yield Fault(
            f"{path_of(second)}.variants",
            slot,
            f"is decided by {first.id!r} of layer {first.layer!r} too: "
            "put both experiments into one layer",
        )


def path_of(experiment: Experiment) -> str:
    """Where the experiment stands in a workspace."""
    return f"layers.{experiment.layer}.{experiment.id}"


def _bad_id(path: str, value: str) -> Iterator[Fault]:
    if not _ID.fullmatch(value):
        yield Fault(path, value, "use 1 to 64 of the characters A-Z a-z 0-9 _ -")


def _bad_salt(path: str, salt: str | None) -> Iterator[Fault]:
    if salt is not None and (not salt or ":" in salt):
        yield Fault(f"{path}.salt", salt, 'use a salt that is not empty and has no ":"')


def _twice(path: str, ids: Iterable[str]) -> Iterator[Fault]:
    for name, count in Counter(ids).items():
        if count > 1:
            yield Fault(path, name, f"is declared {count} times: give each an id of its own")
