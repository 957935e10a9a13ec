"""The kinds of policies: making one from parameters, reading one from a snapshot."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from policies import parameters as _parameters
from policies.base import BasePolicy
from policies.constraints import GUARDED, WATCHED, restore_guarded, restore_watched
from policies.counting import UCB1, EpsilonGreedy, Softmax
from policies.errors import PolicyError
from policies.linear import AdaptiveUCB, LinGreedy, LinSquareCB, LinTS, LinUCB
from policies.logistic import LogisticTS
from policies.neighbourhoods import MABLSH, MABClusters, MABNearest, MABRadius, MABTree
from policies.parameters import ParameterDescription, ParameterFault
from policies.simple import Fixed, Segmented, Uniform, Weighted
from policies.snapshots import unpack
from policies.thompson import ThompsonBeta, ThompsonGamma, ThompsonGaussian
from policies.top_two import TopTwoBeta, TopTwoGaussian
from policies.types import Action, Policy
from policies.vw import VowpalWabbit, VowpalWabbitContinuous

_KINDS: tuple[type[BasePolicy[Any]], ...] = (
    Fixed,
    Uniform,
    Weighted,
    Segmented,
    EpsilonGreedy,
    Softmax,
    UCB1,
    ThompsonBeta,
    ThompsonGamma,
    ThompsonGaussian,
    AdaptiveUCB,
    LinUCB,
    LinTS,
    LinGreedy,
    LinSquareCB,
    LogisticTS,
    TopTwoBeta,
    TopTwoGaussian,
    VowpalWabbit,
    VowpalWabbitContinuous,
    MABNearest,
    MABRadius,
    MABLSH,
    MABClusters,
    MABTree,
)
POLICY_KINDS: Mapping[str, type[BasePolicy[Any]]] = MappingProxyType(
    {policy.kind: policy for policy in _KINDS}
)
"""Every kind that `make_policy` knows, by name."""

DEFAULT_KIND = AdaptiveUCB.kind
"""The contextual kind to take where in doubt: it needs no tuning."""


def make_policy(kind: str = DEFAULT_KIND, **parameters: object) -> Policy:
    """A policy that has learned nothing yet.

    >>> from policies import Action, make_policy
    >>> make_policy("weighted", weights={"A": 3, "B": 1}).pmf({}, [Action("A"), Action("B")])
    array([0.75, 0.25])

    Raises
    ------
    PolicyError
        If the kind is unknown, or a parameter is unknown, ill-typed or out of bounds; the
        message lists every fault.
    """
    return _make(kind, parameters)


def load_policy(data: bytes) -> Policy:
    """The policy that a snapshot holds: it decides, and learns on, as the saved one would.

    Raises
    ------
    PolicyError
        If the bytes were truncated or altered, or hold no policy that this version can read.
    """
    snapshot = unpack(data)
    if snapshot.kind == GUARDED:
        return restore_guarded(snapshot, load_policy)
    if snapshot.kind == WATCHED:
        return restore_watched(snapshot, load_policy)
    policy = _make(snapshot.kind, snapshot.parameters)
    policy.restore(snapshot)
    return policy


def describe_parameters(kind: str) -> tuple[ParameterDescription, ...]:
    """What parameters a kind takes: name, type, default, bounds and meaning of each.

    Raises
    ------
    PolicyError
        If the kind is unknown.
    """
    return _parameters.describe(_known(kind).parameters_model)


def parameter_faults(kind: str, parameters: Mapping[str, object]) -> tuple[ParameterFault, ...]:
    """All that `make_policy` would refuse; empty if it would make the policy.

    Raises
    ------
    PolicyError
        If the kind is unknown.
    """
    return _parameters.faults(_known(kind).parameters_model, parameters)


def action_refusal(kind: str, parameters: Mapping[str, object], action: Action) -> str:
    """Why a policy could never choose an action, and the repair; empty if it could.

    Of parameters that `make_policy` would refuse nothing is said.

    Raises
    ------
    PolicyError
        If the kind is unknown.
    """
    policy = _known(kind)
    if _parameters.faults(policy.parameters_model, parameters):
        return ""
    return policy.refusal(msgspec.convert(parameters, policy.parameters_model), action)


def _make(kind: str, parameters: Mapping[str, object]) -> BasePolicy[Any]:
    policy = _known(kind)
    if faults := _parameters.faults(policy.parameters_model, parameters):
        listed = "; ".join(f"{f.name or 'parameters'} = {f.value!r} {f.message}" for f in faults)
        raise PolicyError(f"policy of kind {kind!r}: {listed}")
    return policy(msgspec.convert(parameters, policy.parameters_model))


def _known(kind: str) -> type[BasePolicy[Any]]:
    policy = POLICY_KINDS.get(kind)
    if policy is None:
        raise PolicyError(f"kind is {kind!r}, which is unknown. Known: {', '.join(POLICY_KINDS)}.")
    return policy
