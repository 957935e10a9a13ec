"""All that is randomised, together: valid once it exists, and what may change of it later.

The constructor of a design looks at everything and raises one error with all faults, because
whoever mends a workspace wants to do it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from experiments.assignment import Assigner, Assignment
from experiments.checks import NEXT_STATES, design_faults, path_of
from experiments.errors import ExperimentError, Fault
from experiments.experiment import Experiment, Holdout


@dataclass(frozen=True, slots=True)
class Design:
    """All holdouts and experiments of a workspace, in declared order.

    Raises
    ------
    ExperimentError
        With every fault: an id that is none or is used twice, a share, range, ramp or weight out
        of bounds, a salt that is empty, has ":" or serves two purposes, an unknown state or
        baseline, an experiment that decides no slot, ranges that overlap in a layer, a slot that
        started experiments of two layers both decide.
    """

    holdouts: tuple[Holdout, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    assigner: Assigner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if faults := tuple(design_faults(self.holdouts, self.experiments)):
            raise ExperimentError(faults)
        object.__setattr__(self, "assigner", Assigner(self.holdouts, self.experiments))


def assign(design: Design, unit: str, surface: str) -> tuple[Assignment, ...]:
    """The assignments of ``unit`` that hold for a decision of ``surface``.

    One of kind "holdout" and nothing else if a holdout of the surface holds the unit, the first in
    declared order; otherwise at most one of kind "experiment" for each layer, in declared order,
    of the running experiments that decide a slot of the surface.
    """
    return design.assigner(unit, surface)


def changed_faults(old: Design, new: Design) -> tuple[Fault, ...]:
    """What in ``new`` would break the comparisons that ``old`` has begun.

    A started experiment keeps its layer, range, salt and variants; its ramp may change. States only
    move on: draft, running and paused at will, ended for good. A holdout keeps its salt. What is
    only in one of the designs is no fault.
    """
    return (*_changed_holdouts(old, new), *_changed_experiments(old, new))


def _changed_holdouts(old: Design, new: Design) -> Iterator[Fault]:
    before = {holdout.id: holdout for holdout in old.holdouts}
    for holdout in new.holdouts:
        previous = before.get(holdout.id)
        if previous is not None and previous.bucket_salt != holdout.bucket_salt:
            yield Fault(
                f"holdouts.{holdout.id}.salt",
                holdout.bucket_salt,
                f"would hold out other units: keep {previous.bucket_salt!r} or choose a new id",
            )


def _changed_experiments(old: Design, new: Design) -> Iterator[Fault]:
    before = {experiment.id: experiment for experiment in old.experiments}
    for experiment in new.experiments:
        previous = before.get(experiment.id)
        if previous is None:
            continue
        path = path_of(experiment)
        if experiment.state not in (previous.state, *NEXT_STATES[previous.state]):
            allowed = " or ".join(NEXT_STATES[previous.state]) or "nothing else"
            yield Fault(
                f"{path}.state",
                experiment.state,
                f"cannot follow {previous.state!r}, which leads to {allowed}: choose a new id",
            )
        if previous.started:
            for name in ("layer", "range", "variant_salt", "variants"):
                if getattr(experiment, name) != getattr(previous, name):
                    yield Fault(
                        f"{path}.{name.removeprefix('variant_')}",
                        getattr(experiment, name),
                        "changes an experiment that has started, whose units would move: restore "
                        f"{getattr(previous, name)!r}, or end it and choose a new id",
                    )
