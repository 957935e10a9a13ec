"""The surface that decisions are measured on: 3 slots × 5 actions, 10 rules, 40 attributes.

Five rules stand on the surface and one on an action of five; a LinUCB and a Thompson policy, one
experiment and a holdout. Both policies have learned.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.decide import Model, Serving
from engine.models import fresh, static_models
from engine.workspace import Workspace, workspace_from_content
from policies import Action, Feedback, Policy, snapshot_digest

ATTRIBUTES = 40
ACTIONS = tuple("abcde")
LEARNED = 500


def content() -> dict[str, Any]:
    """The workspace's content."""
    numbers = {f"n{i}": "number" for i in range(ATTRIBUTES // 2)}
    texts = {f"s{i}": "string" for i in range(ATTRIBUTES // 2)}
    shared = [
        _rule(f"surface_{i}", f'n{i} >= -5.0 && s{i} in ["x", "y", "z"] && n{i + 5} < 9.0')
        for i in range(5)
    ]
    actions = {a: {"value": {"show": a}, "features": {"rank": i}} for i, a in enumerate(ACTIONS)}
    slots: dict[str, dict[str, Any]] = {
        "layout": {"policy": "linear", "rules": [_rule("b", "n1 > -9.0", "b")]},
        "hero": {
            "policy": "thompson",
            "rules": [_rule("c", 's2 != "q"', "c"), _rule("d", "n3 < 9.0", "d")],
        },
        "banner": {"rules": [_rule("e", "n4 > 2.0", "e"), _rule("b", "n5 > -9.0", "b")]},
    }
    return {
        "surfaces": {
            "home": {
                "owner": "bench",
                "attributes": {n: {"type": t} for n, t in (numbers | texts).items()},
                "metrics": {"click": {"window": "1s", "range": [0, 1]}},
                "reward": {"click": 1.0},
                "rules": shared,
                "slots": {
                    name: {"default": "a", "actions": actions, **slot}
                    for name, slot in slots.items()
                },
            }
        },
        "policies": {
            "linear": {
                "kind": "lin_ucb",
                "features": [*list(numbers)[:8], "s0", "s1"],
                "floor": 0.02,
            },
            "thompson": {"kind": "thompson_beta", "floor": 0.02},
        },
        "holdouts": {"global": {"share": 0.05}},
        "layers": {
            "home": {
                "test": {
                    "range": [0.0, 1.0],
                    "variants": {
                        "control": {"slots": {"home.banner": {"action": "a"}}},
                        "bandit": {"slots": {"home.banner": {"action": "b"}}},
                    },
                }
            }
        },
    }


def _rule(id_: str, when: str, action: str | None = None) -> dict[str, Any]:
    only = {"actions": [action]} if action else {}
    return {"id": id_, "kind": "eligibility", "when": when, "reason": "bench", **only}


def workspace() -> Workspace:
    """The workspace, compiled."""
    return workspace_from_content(msgspec.json.encode(content()))


def context(rng: random.Random) -> dict[str, Any]:
    """All attributes of one request."""
    numbers = {f"n{i}": round(rng.gauss(0, 2), 4) for i in range(ATTRIBUTES // 2)}
    return {**numbers, **{f"s{i}": rng.choice("xyz") for i in range(ATTRIBUTES // 2)}}


def learned(kind: Policy) -> Policy:
    """The policy after some hundred random decisions."""
    rng = random.Random(3)
    actions = tuple(Action(a) for a in ACTIONS)
    kind.learn(
        [
            Feedback(context(rng), actions, rng.choice(ACTIONS), 0.2, float(rng.random() < 0.3))
            for _ in range(LEARNED)
        ]
    )
    return kind


def serving() -> Serving:
    """The workspace with models that have learned."""
    compiled = workspace()
    models: Mapping[str, Model] = {
        learner.id: Model(policy, snapshot_digest(policy.dumps()))
        for learner in compiled.learners.values()
        for policy in [learned(fresh(learner.policy))]
    }
    return Serving(compiled, {**models, **static_models(compiled)})
