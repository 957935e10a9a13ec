"""What the contract suite needs to know of each kind: parameters, and a small log to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies import Action, Context, Feedback, Policy, make_policy

ACTIONS = (
    Action("A", {"depth": 4, "tone": "warm", "value": 0}),
    Action("B", {"depth": 1.5, "new": True, "value": 1.0}),
    Action("C", {"value": 2}),
    Action("D", {"tone": None, "value": 3}),
)


@dataclass(frozen=True)
class Case:
    """A kind with parameters; ``reads`` is an attribute whose value matters to it.

    What is not ``resumable`` is refitted from the log instead of being learned on.
    """

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reads: str | None = None
    resumable: bool = True

    def make(self) -> Policy:
        return make_policy(self.kind, **self.parameters)

    def trained(self) -> Policy:
        policy = self.make()
        policy.learn(feedback(100, seed=1))
        return policy


CASES = (
    Case("fixed", {"action": "B"}),
    Case("uniform"),
    Case("weighted", {"weights": {"A": 3, "B": 1, "C": 0}}),
    Case(
        "segment",
        {
            "segments": [
                {"id": "vip", "weights": {"A": 1.0}},
                {"id": "new", "weights": {"A": 1.0, "B": 4.0}},
            ],
            "otherwise": {"C": 1.0, "D": 1.0},
        },
        reads="segment.new",
    ),
    Case("epsilon_greedy"),
    Case("softmax"),
    Case("ucb1"),
    Case("thompson_beta"),
    Case("thompson_gamma"),
    Case("thompson_gaussian"),
    Case("thompson_gaussian", {"half_life": 30}),
    Case("thompson_beta", {"half_life": 30}),
    Case("top_two_beta"),
    Case("top_two_gaussian", {"share": 0.4}),
    Case("logistic_ts", reads="hour"),
    Case("logistic_ts", {"fourier": 16, "half_life": 60}, reads="hour"),
    Case("lin_ucb", reads="hour"),
    Case("lin_ucb", {"features": ["device", "hour", "age"], "max_categories": 2}, reads="hour"),
    Case("lin_ucb", {"fourier": 16, "alpha": 1.5}, reads="hour"),
    Case("lin_ucb", {"half_life": 40}, reads="hour"),
    Case("lin_ucb", {"interactions": [["hour", "device"], ["age", "age"]]}, reads="hour"),
    Case("lin_ucb", {"sharing": "shared"}, reads="hour"),
    Case("lin_squarecb", {"sharing": "hybrid", "half_life": 100}, reads="hour"),
    Case("adaptive_ucb", reads="hour"),
    Case("adaptive_ucb", {"fourier": 16, "half_life": 200, "seed": 3}, reads="hour"),
    Case("lin_ts", {"sharing": "hybrid", "interactions": [["hour", "member"]]}, reads="hour"),
    Case("lin_ts", reads="hour"),
    Case("lin_ts", {"fourier": 16, "seed": 7}, reads="hour"),
    Case("lin_greedy", reads="hour"),
    Case("lin_squarecb", reads="hour"),
    Case("lin_squarecb", {"fourier": 8, "gamma": 30.0}, reads="hour"),
    Case("vw", {"bits": 10}, reads="hour"),
    Case("vw", {"bits": 10, "exploration": "epsilon", "features": ["hour"]}, reads="hour"),
    Case("vw", {"bits": 10, "exploration": "first", "first": 50}, reads="hour"),
    Case("vw", {"bits": 10, "exploration": "softmax", "cb_type": "ips"}, reads="hour"),
    Case(
        "vw",
        {"bits": 10, "exploration": "epsilon", "cb_type": "dr"},
        reads="hour",
        resumable=False,
    ),
    Case("vw", {"bits": 10, "exploration": "regcb"}, reads="hour"),
    Case("vw", {"bits": 10, "exploration": "regcbopt"}, reads="hour"),
    Case("vw", {"bits": 10, "exploration": "bag"}, reads="hour", resumable=False),
    Case("vw", {"bits": 10, "exploration": "cover"}, reads="hour", resumable=False),
    Case("vw", {"bits": 10, "exploration": "rnd"}, reads="hour", resumable=False),
    Case("vw_cats", {"bits": 10, "low": 0, "high": 4, "step": 1}, reads="hour", resumable=False),
    Case(
        "vw_cats",
        {"bits": 10, "low": -1, "high": 4, "step": 0.5, "bandwidth": 0.7, "features": ["hour"]},
        reads="hour",
        resumable=False,
    ),
    Case("mab_nearest", {"k": 20}, reads="hour"),
    Case(
        "mab_nearest",
        {"learning": "thompson", "simulations": 5, "memory": 40, "k": 9},
        reads="hour",
    ),
    Case("mab_radius", {"learning": "ucb1"}, reads="hour"),
    Case("mab_radius", {"radius": 0.1, "metric": "cosine", "features": ["hour"]}, reads="hour"),
    Case("mab_lsh", {"learning": "softmax", "simulations": 5}, reads="hour"),
    Case("mab_clusters", {"clusters": 4}, reads="hour"),
    Case("mab_clusters", {"learning": "thompson", "simulations": 5}, reads="hour"),
    Case("mab_tree", {"min_leaf": 5}, reads="hour"),
    Case(
        "mab_tree", {"learning": "thompson", "simulations": 3, "features": ["hour"]}, reads="hour"
    ),
)


def context(rng: np.random.Generator) -> Context:
    """A context with every type of value, some missing, and the segments' booleans."""
    values: dict[str, float | str | bool | None] = {
        "hour": int(rng.integers(24)),
        "revenue": float(rng.lognormal(6.0, 2.0)),
        "device": str(rng.choice(["phone", "desk top", "tv|x:1", "wéb\n"])),
        "member": bool(rng.random() < 0.5),
        "age": None if rng.random() < 0.3 else float(rng.normal()),
        "segment.vip": bool(rng.random() < 0.2),
        "segment.new": bool(rng.random() < 0.5),
    }
    if rng.random() < 0.2:
        del values["revenue"]
    return values


def contexts(n: int, seed: int) -> list[Context]:
    rng = np.random.default_rng(seed)
    return [context(rng) for _ in range(n)]


def feedback(n: int, seed: int) -> list[Feedback]:
    """A uniformly logged log with rewards in [0, 1] that depend on context and action."""
    rng = np.random.default_rng(seed)
    log = []
    for _ in range(n):
        seen, drawn = context(rng), int(rng.integers(len(ACTIONS)))
        chance = 0.8 if bool(seen["member"]) == (drawn < 2) else 0.2
        reward = float(rng.random() < chance)
        log.append(Feedback(seen, ACTIONS, ACTIONS[drawn].id, 0.25, reward))
    return log
