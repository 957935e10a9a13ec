"""What all policies share: parameters, snapshots, and the defaults of those without a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import numpy as np

from policies import snapshots
from policies.errors import PolicyError
from policies.parameters import Parameters
from policies.types import Action, Context, Feedback, FloatArray, Winner, action_ids

P = TypeVar("P", bound=Parameters)


class BasePolicy(ABC, Generic[P]):
    """A policy made from validated parameters; a subclass says how it chooses and learns.

    See `policies.types.Policy` for what each method promises.
    """

    kind: ClassVar[str]
    learns: ClassVar[bool] = False
    reward_range: ClassVar[tuple[float, float] | None] = None
    parameters_model: ClassVar[type[Parameters]]

    def __init__(self, parameters: P) -> None:
        self.parameters = parameters

    @property
    def resumable(self) -> bool:
        """True: every kind here resumes exactly."""
        return True

    @classmethod
    def refusal(cls, parameters: P, action: Action) -> str:  # noqa: ARG003
        """Why a policy with these parameters could never choose an action; empty if it could."""
        return ""

    @abstractmethod
    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,), see `policies.types.Policy.pmf`."""

    @abstractmethod
    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k), see `policies.types.Policy.pmfs`."""

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray | None:  # noqa: ARG002
        """None: there is no model of the reward."""
        return None

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray | None]:
        """See `policies.types.Policy.pmf_and_expected`."""
        return self.pmf(context, actions), self.expected(context, actions)

    def winner(self, actions: Sequence[Action]) -> Winner | None:  # noqa: ARG002
        """None: no winner is looked for."""
        return None

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Nothing to learn."""
        check_feedback(feedback)

    def dumps(self) -> bytes:
        """The policy's snapshot, as `policies.snapshots` lays it out."""
        parameters = msgspec.to_builtins(self.parameters)
        return snapshots.pack(self.kind, parameters, self._state(), self._arrays())

    def _state(self) -> dict[str, Any]:
        return {}

    def _arrays(self) -> dict[str, snapshots.Array]:
        return {}

    def restore(self, snapshot: snapshots.Snapshot) -> None:
        """Take the state of a snapshot of this kind and these parameters.

        Raises
        ------
        PolicyError
            If the snapshot's state is not of this kind's form.
        """
        if snapshot.state or snapshot.arrays:
            raise PolicyError(f"snapshot of kind {self.kind!r} holds state, but the kind has none.")


class ContextFree(BasePolicy[P]):
    """A policy that reads no context: its pmf is a function of the eligible ids alone."""

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:  # noqa: ARG002
        """(k,), the same for every context."""
        return self._probabilities(action_ids(actions))

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k), n equal rows."""
        return np.tile(self._probabilities(action_ids(actions)), (len(contexts), 1))

    @abstractmethod
    def _probabilities(self, ids: tuple[str, ...]) -> FloatArray:
        """(k,) over eligible ids that are distinct and at least one."""


def check_feedback(feedback: Sequence[Feedback]) -> None:
    """Refuse a batch that holds anything but `Feedback`, whose constructor did the rest.

    Raises
    ------
    PolicyError
        Naming the first such element.
    """
    for position, item in enumerate(feedback):
        if not isinstance(item, Feedback):
            raise PolicyError(f"feedback[{position}] is {item!r}. Give Feedback values.")
