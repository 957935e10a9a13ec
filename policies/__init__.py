"""Policies: a context and the eligible actions in, an exact distribution over them out.

Start at `make_policy`; `policies.types.Policy` is what every policy promises.
"""

from policies.constraints import Guarantee, Guarded, Protection, Protections, Seen, Watched, priced
from policies.errors import PolicyError
from policies.parameters import ParameterDescription, ParameterFault
from policies.pmf import apply_floor, draw, normalise
from policies.registry import (
    DEFAULT_KIND,
    POLICY_KINDS,
    action_refusal,
    describe_parameters,
    load_policy,
    make_policy,
    parameter_faults,
)
from policies.snapshots import snapshot_digest
from policies.types import Action, Context, Contexts, Feedback, FloatArray, Policy, Value, Winner

__all__ = [
    "DEFAULT_KIND",
    "POLICY_KINDS",
    "Action",
    "Context",
    "Contexts",
    "Feedback",
    "FloatArray",
    "Guarantee",
    "Guarded",
    "ParameterDescription",
    "ParameterFault",
    "Policy",
    "PolicyError",
    "Protection",
    "Protections",
    "Seen",
    "Value",
    "Watched",
    "Winner",
    "action_refusal",
    "apply_floor",
    "describe_parameters",
    "draw",
    "load_policy",
    "make_policy",
    "normalise",
    "parameter_faults",
    "priced",
    "snapshot_digest",
]
