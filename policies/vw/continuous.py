"""Continuous choices, such as an hour or a discount: CATS, over a grid of actions.

The actions are numbers on a grid, low, low + step, …, high, each told by its feature ``value``. The
library gives a density over [low − step/2, high + step/2], constant piece by piece; an action's
probability is the integral of the density over its cell, value ± step/2, among the eligible ones.
The pmf is thus exact, and all that holds of a choice among few (floors, rules, evaluation) holds of
it. An action of probability p is learned from with the density p / step.

The library is told of distances from the range's low end: of a range that does not begin at 0 it
loses the pieces that reach the ends, and the density with them (pmf_to_pdf.cc compares the centre,
not its distance from the low end, with the bandwidth).

References
----------
Majzoubi, Zhang, Chari, Krishnamurthy, Langford & Slivkins (2020), Efficient Contextual Bandits with
Continuous Actions, NeurIPS.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from policies.base import BasePolicy, check_feedback
from policies.errors import PolicyError
from policies.parameters import Parameters
from policies.pmf import normalise
from policies.snapshots import Snapshot
from policies.types import Action, Context, Feedback, FloatArray, action_ids
from policies.vw.library import Model, Reduction
from policies.vw.text import context_text, cost

_REMEMBERED = 256
_MOST_CELLS = 10_000
_OFF_GRID = 1e-6  # of a step
_FLOAT32 = 1e-4  # what sums in its precision are off by at most
Number = Annotated[float, msgspec.Meta(gt=-1e6, lt=1e6)]


class ContinuousParameters(Parameters, frozen=True):
    """Parameters of `VowpalWabbitContinuous`."""

    low: Annotated[Number, msgspec.Meta(description="The least number on the grid.")]
    high: Annotated[Number, msgspec.Meta(description="The largest.")]
    step: Annotated[
        float, msgspec.Meta(gt=0, lt=1e6, description="From one number on the grid to the next.")
    ]
    bins: Annotated[
        int, msgspec.Meta(ge=2, le=1_024, description="How finely the best number is told.")
    ] = 8
    bandwidth: Annotated[
        float | None,
        msgspec.Meta(description="How far around the best it chooses; null is half a bin."),
    ] = None
    epsilon: Annotated[
        float, msgspec.Meta(gt=0, le=1, description="Share spread over the whole range.")
    ] = 0.1
    learning_rate: Annotated[
        float, msgspec.Meta(gt=0, le=100, description="Step of the gradient descent.")
    ] = 0.5
    bits: Annotated[
        int, msgspec.Meta(ge=8, le=26, description="The model has 2^bits hashed weights.")
    ] = 18
    features: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="Context attributes to read; null reads all that are given."),
    ] = None

    def __post_init__(self) -> None:
        steps = (self.high - self.low) / self.step
        if not (steps > 0.5 and abs(steps - round(steps)) < _OFF_GRID and steps < _MOST_CELLS):
            raise ValueError(
                f"low, high and step are {self.low:g}, {self.high:g} and {self.step:g}. Let high "
                f"lie a whole number of steps above low, at most {_MOST_CELLS:,}"
            )
        if self.bandwidth is not None and not 0.0 < self.bandwidth <= self.high - self.low:
            raise ValueError(f"bandwidth is {self.bandwidth:g}. Give more than 0, to high − low")

    @property
    def cells(self) -> int:
        """How many numbers the grid has."""
        return round((self.high - self.low) / self.step) + 1


class _State(msgspec.Struct, forbid_unknown_fields=True):
    model: bytes


class VowpalWabbitContinuous(BasePolicy[ContinuousParameters]):
    """A `cats_pdf` workspace: a tree of classifiers finds the number, smoothed by a bandwidth.

    ``expected`` is None: the library gives a density, not its costs.
    """

    kind = "vw_cats"
    learns = True
    parameters_model = ContinuousParameters

    def __init__(self, parameters: ContinuousParameters) -> None:
        super().__init__(parameters)
        self._reduction = Reduction(_options(parameters), "|c x")
        self._model = Model(self._reduction)
        self._edges = parameters.step * np.arange(parameters.cells + 1)
        self._cells: dict[tuple[Action, ...], npt.NDArray[np.int64]] = {}

    @property
    def resumable(self) -> bool:
        """False, as was found by learning on from saved models: they hold not all of it."""
        return False

    @classmethod
    def refusal(cls, parameters: ContinuousParameters, action: Action) -> str:
        """Why an action cannot be chosen: its ``value`` is absent or off the grid."""
        value = action.features.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"has the feature value {value!r}. Give it a number"
        steps = (value - parameters.low) / parameters.step
        on_grid = abs(steps - round(steps)) < _OFF_GRID and 0 <= round(steps) < parameters.cells
        if not (math.isfinite(steps) and on_grid):
            return (
                f"has the feature value {value!r}. Give a number that lies whole steps of "
                f"{parameters.step:g} from {parameters.low:g}, up to {parameters.high:g}"
            )
        return ""

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): the density's integral over each cell, among those eligible."""
        cells = self._cells_of(actions)
        return normalise(self._integrals(self._text(context))[cells])

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k): one prediction for each distinct context text."""
        cells = self._cells_of(actions)
        texts = [self._text(context) for context in contexts]
        distinct = {text: normalise(self._integrals(text)[cells]) for text in dict.fromkeys(texts)}
        return np.array([distinct[text] for text in texts]).reshape(len(texts), len(cells))

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """One gradient step a decision, in order."""
        check_feedback(feedback)
        for example in [self._labelled(item) for item in feedback]:
            self._model.learn(example)

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        self._model = Model(self._reduction, snapshot.state_as(_State).model)

    def _state(self) -> dict[str, Any]:
        return {"model": self._model.saved()}

    def _text(self, context: Context) -> str:
        return context_text(context, self.parameters.features)

    def _labelled(self, item: Feedback) -> str:
        (drawn,) = [action for action in item.actions if action.id == item.action]
        (cell,) = self._cells_of([drawn])
        step = self.parameters.step
        distance, density = (float(cell) + 0.5) * step, float(item.propensity) / step
        return f"ca {distance!r}:{cost(item)}:{density!r} {self._text(item.context)}"

    def _integrals(self, text: str) -> FloatArray:
        """The density's integral over each cell of the grid."""
        pieces = self._model.density(text)
        knots = [pieces[0].low, *(piece.high for piece in pieces)]
        mass = np.cumsum([0.0, *((p.high - p.low) * p.density for p in pieces)])
        if not abs(mass[-1] - 1.0) < _FLOAT32:
            raise PolicyError(
                f"Vowpal Wabbit's density integrates to {mass[-1]:g}. Install vowpalwabbit as "
                "pinned in requirements.lock."
            )
        cells = np.diff(np.interp(self._edges, knots, mass))
        return np.asarray(np.maximum(cells, 0.0), dtype=np.float64)

    def _cells_of(self, actions: Sequence[Action]) -> npt.NDArray[np.int64]:
        """Where on the grid each action is."""
        key = tuple(actions)
        cells = self._cells.get(key)
        if cells is None:
            action_ids(actions)
            given = self.parameters
            for action in actions:
                if refusal := self.refusal(given, action):
                    raise PolicyError(f"action {action.id!r} {refusal}.")
            values = np.array([action.features["value"] for action in actions], dtype=np.float64)
            cells = np.rint((values - given.low) / given.step).astype(np.int64)
            if len(self._cells) >= _REMEMBERED:
                self._cells.clear()
            self._cells[key] = cells
        return cells


def _options(parameters: ContinuousParameters) -> tuple[str, ...]:
    width = parameters.cells * parameters.step
    bandwidth = parameters.bandwidth
    if bandwidth is None:
        bandwidth = width / parameters.bins / 2.0
    return (
        "--cats_pdf",
        str(parameters.bins),
        "--min_value",
        repr(0.0),
        "--max_value",
        repr(width),
        "--bandwidth",
        repr(bandwidth),
        "--epsilon",
        repr(parameters.epsilon),
        "--bit_precision",
        str(parameters.bits),
        "--learning_rate",
        repr(parameters.learning_rate),
    )
