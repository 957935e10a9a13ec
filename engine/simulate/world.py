"""What a world is: visits, the finite set of situations they arise from, and what follows them.

All randomness is a hash of the world's seed and of ids that never change, so that what a viewer
would do does not depend on who else came, nor on the order in which anything is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from engine.log import Outcome
from engine.request import DecideRequest
from experiments.buckets import bucketer

Context = tuple[tuple[str, str | int | float | bool], ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """All that outcomes can depend on beside what is shown.

    ``viewer`` is the kind of viewer, which no policy sees; ``context`` is what the request says,
    an attribute left out where it is unknown.
    """

    viewer: str
    context: Context


@dataclass(frozen=True, slots=True)
class Visit:
    """One occasion to decide; it comes whatever was shown before. ``id`` is unique in its world."""

    id: str
    at_us: int
    surface: str
    trigger: str
    situation: Situation
    user_id: str | None = None
    anonymous_id: str | None = None

    def request(self) -> DecideRequest:
        """What a service asks on this occasion."""
        return DecideRequest(
            surface=self.surface,
            user_id=self.user_id,
            anonymous_id=self.anonymous_id,
            trigger=self.trigger,
            context=dict(self.situation.context),
        )


@dataclass(frozen=True, slots=True)
class Response:
    """Something that follows a visit: its value, how long after, and how long the news takes."""

    value: float
    after_us: int
    news_us: int


Distribution = tuple[tuple[float, Response | None], ...]
"""What may follow, with probabilities that sum to one; None: nothing does."""


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """A distribution for each metric, the metrics independent. Compared by identity: a world
    gives the same object for the same case, so that what is made of it can be kept.
    """

    by_metric: Mapping[str, Distribution]


class World(Protocol):
    """Visits and their consequences, all known beforehand.

    ``slots`` names, by surface and slot, the actions whose consequences the world knows.
    """

    @property
    def seed(self) -> int: ...

    @property
    def slots(self) -> Mapping[str, Mapping[str, frozenset[str]]]: ...

    def midnight(self, day: int) -> int:
        """When a day begins, in microseconds; days count from 0."""

    def visits(self, day: int) -> Sequence[Visit]:
        """The visits of a day, in the order of time."""

    def situations(self, surface: str) -> Mapping[Situation, float]:
        """Every situation of a visit to ``surface`` with its probability, the same on any day."""

    def responses(self, surface: str, situation: Situation, shown: Mapping[str, str]) -> Responses:
        """What may follow a visit at which ``shown`` names the action of every slot."""


def uniform(seed: int, what: str, who: str) -> float:
    """A number in [0, 1) that the seed, a purpose and an id determine."""
    return _source(f"world.{seed}.{what}")(who)


_source = lru_cache(maxsize=1_000)(bucketer)


def respond(
    world: World, visit: Visit, shown: Mapping[str, str], decision_id: str
) -> list[Outcome]:
    """The outcomes of a visit, had it been shown this: a function of seed, visit and actions.

    One uniform number for each visit and metric serves all actions, so that two actions differ in
    what they change and not in luck.
    """
    outcomes = []
    for metric, distribution in world.responses(
        visit.surface, visit.situation, shown
    ).by_metric.items():
        response = _drawn(distribution, uniform(world.seed, metric, visit.id))
        if response is not None:
            occurred_at = visit.at_us + response.after_us
            outcomes.append(
                Outcome(
                    outcome_id=f"{decision_id}/{metric}",
                    metric=metric,
                    value=response.value,
                    occurred_at=occurred_at,
                    received_at=occurred_at + response.news_us,
                    decision_id=decision_id,
                )
            )
    return outcomes


def _drawn(distribution: Distribution, u: float) -> Response | None:
    for probability, response in distribution:
        u -= probability
        if u < 0:
            return response
    return distribution[-1][1]
