"""Which holdout or variants a unit belongs to, and with what probability."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, TypeAlias

from experiments.buckets import bucketer
from experiments.experiment import Experiment, Holdout

_Bucketer: TypeAlias = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Assignment:
    """That a unit is held out, or takes part in an experiment under ``variant``.

    ``probability`` in (0, 1] is that of this assignment over all units, the product of ``factors``:
    "holdout.<id>" for being held out or for having passed, then "layer.<layer>" (the width of the
    range), "ramp.<experiment>" and "variant.<experiment>". The variant of a holdout is "holdout".
    """

    kind: Literal["holdout", "experiment"]
    id: str
    variant: str
    probability: float
    factors: Mapping[str, float]


class Assigner:
    """Finds the assignments of units: salts are hashed and results made beforehand."""

    def __init__(self, holdouts: Sequence[Holdout], experiments: Sequence[Experiment]) -> None:
        running = [experiment for experiment in experiments if experiment.state == "running"]
        surfaces = {slot.partition(".")[0] for experiment in running for slot in experiment.slots}
        for holdout in holdouts:
            surfaces |= holdout.surfaces or frozenset()
        self._surfaces = {surface: _Surface(holdouts, running, surface) for surface in surfaces}
        # A surface that nothing names is subject to the holdouts that name none.
        self._elsewhere = _Surface([h for h in holdouts if h.surfaces is None], [], "")

    def __call__(self, unit: str, surface: str) -> tuple[Assignment, ...]:
        """The assignments of ``unit`` on ``surface``, as ``experiments.assign`` says."""
        return self._surfaces.get(surface, self._elsewhere).assign(unit)


class _Surface:
    """Everything that randomises the units of one surface."""

    def __init__(
        self, holdouts: Sequence[Holdout], running: Sequence[Experiment], surface: str
    ) -> None:
        passed: dict[str, float] = {}
        self.holdouts: list[tuple[_Bucketer, float, tuple[Assignment]]] = []
        for holdout in holdouts:
            if holdout.applies_to(surface):
                self.holdouts.append(_held(holdout, passed))
                passed[f"holdout.{holdout.id}"] = 1 - holdout.share
        layers: dict[str, list[_Enrolment]] = {}
        salts: dict[str, str] = {}
        for experiment in running:
            if any(slot.partition(".")[0] == surface for slot in experiment.slots):
                salts[experiment.layer] = experiment.layer_salt
                layers.setdefault(experiment.layer, []).append(_Enrolment(experiment, passed))
        self.layers = [(bucketer(salts[layer]), enrolments) for layer, enrolments in layers.items()]

    def assign(self, unit: str) -> tuple[Assignment, ...]:
        for position, share, held in self.holdouts:
            if position(unit) < share:
                return held
        assignments = []
        for position, enrolments in self.layers:
            place = position(unit)
            for enrolment in enrolments:
                if enrolment.low <= place < enrolment.high:
                    if enrolment.ramp == 1 or enrolment.ramp_position(unit) < enrolment.ramp:
                        assignments.append(enrolment.variant(unit))
                    break
        return tuple(assignments)


class _Enrolment:
    """One experiment on one surface, with the assignment of each variant made beforehand."""

    __slots__ = (
        "_assignments",
        "_bounds",
        "_variant_position",
        "high",
        "low",
        "ramp",
        "ramp_position",
    )

    def __init__(self, experiment: Experiment, passed: Mapping[str, float]) -> None:
        self.low, self.high = experiment.range
        self.ramp = experiment.ramp
        self.ramp_position = bucketer(experiment.ramp_salt)
        self._variant_position = bucketer(experiment.variant_salt)
        # The last cumulative weight is the total, so that the last bound is exactly 1.
        cumulative = list(accumulate(variant.weight for variant in experiment.variants))
        total = cumulative[-1]
        self._bounds = [weight / total for weight in cumulative]
        self._assignments = [
            _assignment(
                "experiment",
                experiment.id,
                variant.id,
                {
                    **passed,
                    f"layer.{experiment.layer}": self.high - self.low,
                    f"ramp.{experiment.id}": experiment.ramp,
                    f"variant.{experiment.id}": variant.weight / total,
                },
            )
            for variant in experiment.variants
        ]

    def variant(self, unit: str) -> Assignment:
        """The first variant whose cumulative share exceeds the unit's bucket."""
        return self._assignments[bisect_right(self._bounds, self._variant_position(unit))]


def _held(
    holdout: Holdout, passed: Mapping[str, float]
) -> tuple[_Bucketer, float, tuple[Assignment]]:
    factors = {**passed, f"holdout.{holdout.id}": holdout.share}
    held = _assignment("holdout", holdout.id, "holdout", factors)
    return bucketer(holdout.bucket_salt), holdout.share, (held,)


def _assignment(
    kind: Literal["holdout", "experiment"], id_: str, variant: str, factors: dict[str, float]
) -> Assignment:
    return Assignment(kind, id_, variant, math.prod(factors.values()), MappingProxyType(factors))
