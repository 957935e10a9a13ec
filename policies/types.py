"""The values that pass between a policy and its caller, and the protocol every policy follows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard, overload

import numpy as np
import numpy.typing as npt

from policies.errors import PolicyError

FloatArray = npt.NDArray[np.float64]
Value = float | str | bool | None
Context = Mapping[str, Value]

LARGEST_NUMBER = 1e100
"""Numbers at or beyond this magnitude are refused: their squares would leave float64's range."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Action:
    """Something a slot can show.

    Parameters
    ----------
    id
        1 to 64 of ``A-Z a-z 0-9 _ -``.
    features
        What is known of the action, by name: a finite number, a string, a bool, or None where
        it is missing. Copied, and read-only from then on.

    Raises
    ------
    PolicyError
        If the id or a feature is not of that form.
    """

    id: str
    features: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not _is_id(self.id):
            raise PolicyError(f"action id is {self.id!r}. Use 1 to 64 letters, digits, '_' or '-'.")
        check_attributes(self.features, f"action {self.id!r}")
        object.__setattr__(self, "features", MappingProxyType(dict(self.features)))


@dataclass(frozen=True, slots=True)
class Contexts(Sequence[Context]):
    """Many contexts, by columns: what `Policy.pmfs` reads fastest.

    >>> contexts = Contexts({"hour": np.array([7, 21]), "device": ["tv", None]})
    >>> contexts[1]
    {'hour': 21, 'device': None}

    Parameters
    ----------
    columns
        For each attribute a value of each context: a sequence, or a NumPy array of numbers or
        bools. None where it is missing; an attribute that is not named is absent in all.

    Raises
    ------
    PolicyError
        If there is no column, they differ in length, or an array is not of one dimension or holds
        neither numbers nor bools.
    """

    columns: Mapping[str, Sequence[Value] | npt.NDArray[Any]]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise PolicyError(f"contexts have columns of {lengths} values. Give as many in each.")
        for name, column in self.columns.items():
            if isinstance(column, np.ndarray) and (
                column.ndim != 1 or column.dtype.kind not in "fiub"
            ):
                raise PolicyError(
                    f"contexts: {name!r} is an array of {column.dtype} of {column.ndim} "
                    "dimensions. Give numbers or bools in one, or a list."
                )
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @overload
    def __getitem__(self, index: int) -> Context: ...
    @overload
    def __getitem__(self, index: slice) -> "Contexts": ...
    def __getitem__(self, index: int | slice) -> "Context | Contexts":
        if isinstance(index, slice):
            return Contexts({name: column[index] for name, column in self.columns.items()})
        values = {name: column[index] for name, column in self.columns.items()}
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class Feedback:
    """One matured decision, as a policy learns from it.

    Parameters
    ----------
    context
        What was known of the unit, by attribute name. Copied, and read-only from then on.
    actions
        The actions eligible at the draw, each once.
    action
        The id of the one drawn.
    propensity
        The probability with which it was drawn, in (0, 1].
    reward
        What it earned, in the reward's unit; finite.

    Raises
    ------
    PolicyError
        If any of these is not so.
    """

    context: Context
    actions: tuple[Action, ...]
    action: str
    propensity: float
    reward: float

    def __post_init__(self) -> None:
        if self.action not in action_ids(self.actions):
            raise PolicyError(
                f"feedback.action is {self.action!r}, which is not among the eligible actions "
                f"{[a.id for a in self.actions]}. Log the eligible set of the same draw."
            )
        if not (_is_number(self.propensity) and 0.0 < self.propensity <= 1.0):
            raise PolicyError(
                f"feedback.propensity is {self.propensity!r}. Give the probability with which "
                "the action was drawn, in (0, 1]."
            )
        if not (_is_number(self.reward) and _is_small(self.reward)):
            told = _told(self.reward)
            raise PolicyError(f"feedback.reward is {told}. Give a finite number; {_BOUND}.")
        check_attributes(self.context, "feedback.context")
        object.__setattr__(self, "context", MappingProxyType(dict(self.context)))


class Winner(NamedTuple):
    """The action most likely the best, with that probability; settled if as sure as asked for."""

    action: str
    probability: float
    settled: bool


class Policy(Protocol):
    """Turns a context and the eligible actions into a distribution over them, and learns.

    A policy never draws and never reads a clock: what it answers depends on its state and its
    arguments alone, and answering leaves no trace on its state.
    """

    kind: ClassVar[str]
    learns: ClassVar[bool]
    """Whether feedback changes what it answers."""
    reward_range: ClassVar[tuple[float, float] | None]
    """The only rewards it can learn from; None for any."""

    @property
    def resumable(self) -> bool:
        """Whether ``learn(a)``, save, load, ``learn(b)`` gives the bytes of ``learn(a + b)``."""

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """Probability of each action, (k,) in the order given: ≥ 0, summing to 1 within 1e-9.

        Raises
        ------
        PolicyError
            If there is no action, an action twice, an attribute that the policy reads is not
            finite or of no known type, or no action that this policy can choose.
        """

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """`pmf` for n contexts at once, (n, k): the same numbers up to rounding, far faster."""

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray | None:
        """Expected reward of each action, (k,) in the reward's unit; None without a model."""

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray | None]:
        """`pmf` and `expected` of the same context, encoded once."""

    def winner(self, actions: Sequence[Action]) -> Winner | None:
        """Which action is the best, and how surely; None from kinds that look for no winner."""

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Learn from matured decisions, in their order; how they are batched changes nothing.

        Raises
        ------
        PolicyError
            If any of them cannot be learned from; then none of them has been.
        """

    def dumps(self) -> bytes:
        """The policy's snapshot: all that it knows, as the bytes `load_policy` reads."""


def action_ids(actions: Sequence[Action]) -> tuple[str, ...]:
    """The ids of eligible actions, in order.

    Raises
    ------
    PolicyError
        If there are none, or one appears twice.
    """
    ids = tuple([action.id for action in actions])
    if not ids:
        raise PolicyError("actions is empty. Give at least one eligible action.")
    if len(set(ids)) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        raise PolicyError(f"actions holds {twice} more than once. Give each action once.")
    return ids


def check_attributes(attributes: Mapping[str, Value], owner: str) -> None:
    """Refuse attributes whose name is no string or whose value no policy can read.

    Raises
    ------
    PolicyError
        Naming ``owner``, the attribute and its value.
    """
    for name, value in attributes.items():
        check_name(name, owner)
        check_value(name, value, owner)


def check_name(name: object, owner: str) -> None:
    """Refuse a name that is no string.

    Raises
    ------
    PolicyError
        Naming ``owner`` and the name.
    """
    if type(name) is not str:
        raise PolicyError(f"{owner} has an attribute named {name!r}. Names are strings.")


def check_value(name: str, value: object, owner: str) -> None:
    """Refuse a value that is no finite number, string, bool or None.

    Raises
    ------
    PolicyError
        Naming ``owner``, the attribute and its value.
    """
    if value is None or isinstance(value, str | bool):
        return
    if not (_is_number(value) and _is_small(value)):
        raise PolicyError(
            f"{owner}: {name!r} is {_told(value)}. Give a finite number, a string, a bool, or None "
            f"where it is missing; {_BOUND}."
        )


_BOUND = f"numbers are between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}"


def _told(value: object) -> str:
    """A value as a message shows it; an integer beyond the bound by its size."""
    if isinstance(value, int) and value.bit_length() > 400:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.match(value) is not None


def _is_number(value: object) -> TypeGuard[float]:
    # The numbers of NumPy are registered as Real; the built-in ones are told apart far quicker.
    return isinstance(value, int | float | Real) and not isinstance(value, bool)


def _is_small(number: Any) -> bool:
    # NumPy's narrow numbers cannot be compared with a bound beyond them, nor huge integers cast.
    if not isinstance(number, int | float):
        number = float(number)
    return bool(-LARGEST_NUMBER < number < LARGEST_NUMBER)
