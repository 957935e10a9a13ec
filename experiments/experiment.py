"""What is randomised: holdouts, and experiments with their variants.

These are plain values. ``Design`` holds them together and finds their faults, all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

State: TypeAlias = Literal["draft", "running", "paused", "ended"]


@dataclass(frozen=True, slots=True)
class Pin:
    """A slot's action, fixed by the variant."""

    action: str


@dataclass(frozen=True, slots=True)
class UsePolicy:
    """The policy that chooses a slot's action in the variant."""

    policy: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the alternatives that an experiment compares.

    ``weight`` is its share of the experiment's units, relative to the other variants'. ``slots``
    maps "surface.slot" to what decides there; a slot that is not named is decided as if there were
    no experiment. It is copied, and read-only from then on.
    """

    id: str
    weight: float
    slots: Mapping[str, Pin | UsePolicy] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", MappingProxyType(dict(self.slots)))


@dataclass(frozen=True, slots=True)
class Experiment:
    """Variants compared on the units of one range of a layer.

    ``range`` is [low, high) of the layer's buckets: experiments of one layer never share a unit.
    ``ramp`` in [0, 1] is the share of the range's units that takes part; raising it moves nobody
    who already does. Only a running experiment assigns. ``salt`` stands for the experiment in its
    hashes, its id by default; ``baseline`` is the variant that others are compared with, the first
    by default.
    """

    id: str
    layer: str
    range: tuple[float, float]
    ramp: float
    variants: tuple[Variant, ...]
    state: State = "running"
    salt: str | None = None
    baseline: str | None = None

    @property
    def baseline_variant(self) -> str:
        """The id of the variant that the others are compared with."""
        return self.variants[0].id if self.baseline is None else self.baseline

    @property
    def started(self) -> bool:
        """Whether units may have been assigned and may be again."""
        return self.state in {"running", "paused"}

    @property
    def slots(self) -> frozenset[str]:
        """Every "surface.slot" that one of the variants decides."""
        return frozenset(slot for variant in self.variants for slot in variant.slots)

    @property
    def layer_salt(self) -> str:
        """Salt of the bucket that ``range`` selects from, one for all experiments of the layer."""
        return f"layer.{self.layer}"

    @property
    def ramp_salt(self) -> str:
        """Salt of the bucket that is compared with ``ramp``."""
        return f"ramp.{self.id if self.salt is None else self.salt}"

    @property
    def variant_salt(self) -> str:
        """Salt of the bucket that chooses the variant."""
        return f"variant.{self.id if self.salt is None else self.salt}"


@dataclass(frozen=True, slots=True)
class Holdout:
    """A ``share`` in [0, 1) of units that is kept on the declared defaults, in no experiment.

    It applies to decisions of ``surfaces``, of all surfaces if None. ``salt`` is "holdout.<id>" by
    default.
    """

    id: str
    share: float
    surfaces: frozenset[str] | None = None
    salt: str | None = None

    @property
    def bucket_salt(self) -> str:
        """Salt of the bucket that is compared with ``share``."""
        return f"holdout.{self.id}" if self.salt is None else self.salt

    def applies_to(self, surface: str) -> bool:
        """Whether decisions of ``surface`` respect this holdout."""
        return self.surfaces is None or surface in self.surfaces
