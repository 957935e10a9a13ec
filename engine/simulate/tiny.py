"""A world small enough to check by hand: one slot, two actions, one binary feature.

A viewer in four has ``x``. The probability of a click, an hour after the visit:

    ======== ====== ======
    feature  a      b
    ======== ====== ======
    x        0.2    0.8
    not x    0.6    0.2
    ======== ====== ======

So always ``a`` is worth .25·.2 + .75·.6 = .5, always ``b`` .35, uniform .425, and the best policy
.25·.8 + .75·.6 = .65.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from engine.simulate.world import Response, Responses, Situation, Visit
from engine.workspace import Workspace, workspace_from_content

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_START = 20_000 * _DAY
_SITUATIONS = {x: Situation("viewer", (("x", x),)) for x in (True, False)}


def _click(probability: float) -> Responses:
    happens = ((1 - probability, None), (probability, Response(1.0, _HOUR, 0)))
    return Responses(MappingProxyType({"click": happens}))


_CLICKS = {
    (True, "a"): _click(0.2),
    (True, "b"): _click(0.8),
    (False, "a"): _click(0.6),
    (False, "b"): _click(0.2),
}

_CONTENT = {
    "surfaces": {
        "page": {
            "owner": "tests@example.com",
            "triggers": ["view"],
            "attributes": {"x": "boolean"},
            "metrics": {"click": {"window": "2h", "aggregate": "max"}},
            "reward": {"click": 1.0},
            "slots": {
                "box": {
                    "default": "a",
                    "policy": "learner",
                    "actions": {"a": {"value": 0}, "b": {"value": 1}},
                }
            },
        }
    },
    "policies": {"learner": {"kind": "lin_ucb", "features": ["x"], "floor": 0.1}},
    "layers": {
        "page": {
            "a_or_b": {
                "range": [0.0, 0.5],
                "variants": {"a": {"slots": {"page.box": "a"}}, "b": {"slots": {"page.box": "b"}}},
            }
        }
    },
}


def tiny_workspace() -> Workspace:
    """Experiment ``a_or_b`` on half of the units; on the others ``learner`` decides."""
    return workspace_from_content(msgspec.json.encode(_CONTENT))


@dataclass(frozen=True)
class TinyWorld:
    """Each of ``viewers`` comes once a day; every fourth, from the first on, has ``x``."""

    seed: int
    viewers: int = 400

    @property
    def slots(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        """See `World.slots`."""
        return {"page": {"box": frozenset({"a", "b"})}}

    def midnight(self, day: int) -> int:
        """See `World.midnight`."""
        return _START + day * _DAY

    def visits(self, day: int) -> Sequence[Visit]:
        """See `World.visits`."""
        return [
            Visit(
                id=f"{number}/{day}",
                at_us=self.midnight(day) + number * 1_000_000,
                surface="page",
                trigger="view",
                situation=_SITUATIONS[number % 4 == 0],
                user_id=f"{self.seed}-{number}",
            )
            for number in range(self.viewers)
        ]

    def situations(self, surface: str) -> Mapping[Situation, float]:  # noqa: ARG002  there is one
        """See `World.situations`."""
        return {_SITUATIONS[True]: 0.25, _SITUATIONS[False]: 0.75}

    def responses(
        self,
        surface: str,  # noqa: ARG002  there is one
        situation: Situation,
        shown: Mapping[str, str],
    ) -> Responses:
        """See `World.responses`."""
        return _CLICKS[situation == _SITUATIONS[True], shown["box"]]
