"""Policies that choose without a model: fixed, uniform, weighted, and weighted by segment."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
import numpy as np

from policies.base import BasePolicy, ContextFree
from policies.errors import PolicyError
from policies.parameters import ActionId, Parameters, Weights
from policies.types import Action, Context, FloatArray, action_ids


class FixedParameters(Parameters, frozen=True):
    """Parameters of `Fixed`."""

    action: Annotated[ActionId, msgspec.Meta(description="The action always chosen.")]


class Fixed(ContextFree[FixedParameters]):
    """Always the one action; a PolicyError where it is not eligible."""

    kind = "fixed"
    parameters_model = FixedParameters

    def _probabilities(self, ids: tuple[str, ...]) -> FloatArray:
        return _proportional({self.parameters.action: 1.0}, ids)


class UniformParameters(Parameters, frozen=True):
    """Parameters of `Uniform`: none."""


class Uniform(ContextFree[UniformParameters]):
    """Every eligible action alike."""

    kind = "uniform"
    parameters_model = UniformParameters

    def _probabilities(self, ids: tuple[str, ...]) -> FloatArray:
        return np.full(len(ids), 1.0 / len(ids))


def _check_total(weights: Mapping[str, float], name: str) -> None:
    if not sum(weights.values()) > 0.0:
        raise ValueError(f"{name} are all zero. Give at least one action a positive weight")


class WeightedParameters(Parameters, frozen=True):
    """Parameters of `Weighted`."""

    weights: Annotated[
        Weights,
        msgspec.Meta(description="Weight by action id; only their proportions matter."),
    ]

    def __post_init__(self) -> None:
        _check_total(self.weights, "weights")


class Weighted(ContextFree[WeightedParameters]):
    """In proportion to declared weights, over those of the weighted actions that are eligible.

    An eligible action without a weight has probability zero; where no eligible action has a
    positive weight, a PolicyError.
    """

    kind = "weighted"
    parameters_model = WeightedParameters

    def _probabilities(self, ids: tuple[str, ...]) -> FloatArray:
        return _proportional(self.parameters.weights, ids)


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named part of the units and the weights it gets."""

    id: ActionId
    weights: Weights

    def __post_init__(self) -> None:
        _check_total(self.weights, f"weights of segment {self.id!r}")


class SegmentedParameters(Parameters, frozen=True):
    """Parameters of `Segmented`."""

    segments: Annotated[
        tuple[Segment, ...],
        msgspec.Meta(
            min_length=1,
            description='Tried in order: {id, weights}; reads the boolean "segment.<id>".',
        ),
    ]
    otherwise: Annotated[
        Weights, msgspec.Meta(description="Weights of units that are in no segment.")
    ]

    def __post_init__(self) -> None:
        _check_total(self.otherwise, "otherwise: weights")
        ids = [segment.id for segment in self.segments]
        if len(set(ids)) != len(ids):
            raise ValueError("segments holds an id twice. Name each segment once")


class Segmented(BasePolicy[SegmentedParameters]):
    """`Weighted`, with the weights of the first segment that the unit is in.

    Rules are not evaluated here: the context says of each segment, as
    ``"segment.<id>"``, whether the unit is in it. False, None and absent all mean that it is not,
    since what is unknown never opens a segment.
    """

    kind = "segment"
    parameters_model = SegmentedParameters

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): weight in the unit's segment over the eligible actions' total."""
        return _proportional(self._weights(context), action_ids(actions))

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k), row by row."""
        ids = action_ids(actions)
        rows = [_proportional(self._weights(context), ids) for context in contexts]
        return np.array(rows).reshape(len(rows), len(ids))

    def _weights(self, context: Context) -> Mapping[str, float]:
        weights = self.parameters.otherwise
        for segment in reversed(self.parameters.segments):
            inside = context.get(f"segment.{segment.id}")
            if inside is True:
                weights = segment.weights
            elif inside is not None and inside is not False:
                raise PolicyError(
                    f'context: "segment.{segment.id}" is {inside!r}. Give true, false or null.'
                )
        return weights


def _proportional(weights: Mapping[str, float], ids: tuple[str, ...]) -> FloatArray:
    chosen = np.array([weights.get(i, 0.0) for i in ids])
    # Scaled by the largest first, so that neither huge nor tiny weights leave float64's range.
    largest = chosen.max()
    if largest == 0.0:
        raise PolicyError(
            f"none of the eligible actions {list(ids)} is among those this policy can choose, "
            f"{sorted(weights)}. Make one of them eligible, or weigh an eligible one."
        )
    chosen /= largest
    return np.asarray(chosen / chosen.sum(), dtype=np.float64)
