"""A streaming service: its home page and its weekly nudge, as ``examples/streaming/workspace``.

Five kinds of viewers come at four hours of the day. Their kind is hidden; device, hour, weeks and
churn risk tell something of it. Layout, hero copy, onboarding banner and channel change what they
watch, whether they cancel, come back or unsubscribe, and how soon that is known. No layout and no
channel is best for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import product
from types import MappingProxyType
from typing import TypeVar
from zoneinfo import ZoneInfo

from engine.ids import to_microseconds
from engine.simulate.world import (
    Context,
    Distribution,
    Response,
    Responses,
    Situation,
    Visit,
    uniform,
)

_MINUTE = 60_000_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_REVIEW_HOUR = 10
_HOURS = (8, 13, 18, 21)
_EVENING = {8: -0.06, 13: 0.0, 18: 0.04, 21: 0.08}
_COUNTRIES = {"DE": 0.6, "AT": 0.25, "CH": 0.15}
_SESSION_HOURS = (0.5, 1.5, 3.0)
_LEAVING = ((0.5, _DAY), (0.3, 3 * _DAY), (0.2, 6 * _DAY))
_LATE_NEWS = ((0.97, _HOUR), (0.03, 9 * _DAY))


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of viewer: who they are, when they come, and what moves them.

    Probabilities throughout; ``visits`` by hour of the day; ``weeks`` is how long one stays;
    ``layout`` and ``channel`` are added to the probability of watching and of coming back.
    """

    share: float
    weeks: int
    plan: str | None
    at_risk: float
    visits: Mapping[int, float]
    devices: Mapping[str, float]
    watches: float
    sessions: tuple[float, float, float]
    layout: Mapping[str, float]
    cancels: float
    returns: float
    channel: Mapping[str, float]
    unsubscribes: Mapping[str, float]
    favourite_hour: int


_KINDS: Mapping[str, _Kind] = {
    "binger": _Kind(
        share=0.25,
        weeks=26,
        plan="premium",
        at_risk=0.2,
        visits={8: 0.05, 13: 0.05, 18: 0.25, 21: 0.5},
        devices={"tv": 0.75, "tablet": 0.15, "phone": 0.1},
        watches=0.48,
        sessions=(0.2, 0.4, 0.4),
        layout={"flat": 0.0, "B": 0.3, "compact": -0.02},
        cancels=0.004,
        returns=0.5,
        channel={"none": 0.0, "email": 0.04, "push": 0.05},
        unsubscribes={"none": 0.0, "email": 0.003, "push": 0.008},
        favourite_hour=21,
    ),
    "commuter": _Kind(
        share=0.25,
        weeks=13,
        plan="basic",
        at_risk=0.2,
        visits={8: 0.45, 13: 0.1, 18: 0.35, 21: 0.1},
        devices={"tv": 0.05, "tablet": 0.2, "phone": 0.75},
        watches=0.5,
        sessions=(0.7, 0.25, 0.05),
        layout={"flat": 0.0, "B": -0.1, "compact": 0.2},
        cancels=0.006,
        returns=0.55,
        channel={"none": 0.0, "email": 0.02, "push": 0.18},
        unsubscribes={"none": 0.0, "email": 0.004, "push": 0.006},
        favourite_hour=8,
    ),
    "family": _Kind(
        share=0.2,
        weeks=26,
        plan="premium",
        at_risk=0.15,
        visits={8: 0.1, 13: 0.2, 18: 0.5, 21: 0.15},
        devices={"tv": 0.6, "tablet": 0.35, "phone": 0.05},
        watches=0.44,
        sessions=(0.3, 0.5, 0.2),
        layout={"flat": 0.0, "B": 0.22, "compact": 0.04},
        cancels=0.004,
        returns=0.4,
        channel={"none": 0.0, "email": 0.16, "push": 0.02},
        unsubscribes={"none": 0.0, "email": 0.002, "push": 0.01},
        favourite_hour=18,
    ),
    "bargain": _Kind(
        share=0.2,
        weeks=4,
        plan="basic",
        at_risk=0.6,
        visits={8: 0.1, 13: 0.15, 18: 0.2, 21: 0.25},
        devices={"tv": 0.3, "tablet": 0.2, "phone": 0.5},
        watches=0.42,
        sessions=(0.4, 0.4, 0.2),
        layout={"flat": 0.0, "B": 0.1, "compact": 0.04},
        cancels=0.012,
        returns=0.3,
        channel={"none": 0.0, "email": 0.08, "push": 0.06},
        unsubscribes={"none": 0.0, "email": 0.004, "push": 0.015},
        favourite_hour=20,
    ),
    # Not signed in: an anonymous id, no plan, no known risk, no weekly review.
    "guest": _Kind(
        share=0.1,
        weeks=1,
        plan=None,
        at_risk=0.0,
        visits={8: 0.1, 13: 0.2, 18: 0.2, 21: 0.2},
        devices={"tv": 0.2, "tablet": 0.2, "phone": 0.6},
        watches=0.36,
        sessions=(0.6, 0.3, 0.1),
        layout={"flat": 0.0, "B": -0.05, "compact": 0.06},
        cancels=0.0,
        returns=0.0,
        channel={"none": 0.0, "email": 0.0, "push": 0.0},
        unsubscribes={"none": 0.0, "email": 0.0, "push": 0.0},
        favourite_hour=20,
    ),
}
_HIGH_RISK = 0.7
_CONSENT: Mapping[bool | None, float] = {True: 0.8, False: 0.15, None: 0.05}

_SLOTS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "home": {
        "layout": frozenset({"flat", "B", "compact"}),
        "hero": frozenset({"plain", "value_prop", "save_offer"}),
        "banner": frozenset({"none", "onboarding"}),
    },
    "nudge": {"channel": frozenset({"none", "email", "push"})},
}


@dataclass(frozen=True)
class StreamingWorld:
    """``viewers`` seats; whoever's weeks are over leaves the seat to a new viewer of the kind.

    So the mixture of weeks, kinds and contexts is the same on every day. A viewer comes at most
    once at each of four hours of a day and is reviewed for a nudge once a week. Days begin at
    midnight in ``time_zone``, the first with ``start``.
    """

    seed: int
    viewers: int = 2_000
    start: date = date(2026, 3, 2)
    time_zone: str = "Europe/Berlin"

    @property
    def slots(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        """See `World.slots`."""
        return _SLOTS

    def midnight(self, day: int) -> int:
        """See `World.midnight`."""
        return self._at(day, 0)

    def visits(self, day: int) -> Sequence[Visit]:
        """See `World.visits`."""
        found = [visit for seat in self._seats for visit in self._visits_of(seat, day)]
        return sorted(found, key=lambda visit: (visit.at_us, visit.id))

    def situations(self, surface: str) -> Mapping[Situation, float]:
        """See `World.situations`."""
        weights: defaultdict[Situation, float] = defaultdict(float)
        for weight, situation in _home_cases() if surface == "home" else _nudge_cases():
            weights[situation] += weight
        total = sum(weights.values())
        return {situation: weight / total for situation, weight in weights.items()}

    def responses(self, surface: str, situation: Situation, shown: Mapping[str, str]) -> Responses:
        """See `World.responses`."""
        said = dict(situation.context)
        at_risk = float(said.get("churn_risk", 0.0)) >= _HIGH_RISK
        if surface == "nudge":
            return _after_nudge(situation.viewer, at_risk, shown["channel"])
        return _after_home(
            situation.viewer,
            at_risk,
            int(said["weeks"]) < 1,
            str(said["device"]),
            int(said["hour"]),
            shown["layout"],
            shown["hero"],
            shown["banner"],
        )

    @cached_property
    def _seats(self) -> tuple[tuple[int, str, int], ...]:
        """Of each seat its number, its kind, and the age in days of its viewer on day 0."""
        shares = {name: kind.share for name, kind in _KINDS.items()}
        seats = []
        for number in range(self.viewers):
            kind = _pick(shares, self._uniform("kind", str(number)))
            age = int(self._uniform("age", str(number)) * 7 * _KINDS[kind].weeks)
            seats.append((number, kind, age))
        return tuple(seats)

    def _uniform(self, what: str, who: str) -> float:
        return uniform(self.seed, what, who)

    def _at(self, day: int, hour: int) -> int:
        return _moment(self.start + timedelta(days=day), hour, self.time_zone)

    def _visits_of(self, seat: tuple[int, str, int], day: int) -> Iterator[Visit]:
        number, name, age = seat
        kind = _KINDS[name]
        generation, days = divmod(age + day, 7 * kind.weeks)
        viewer = f"{self.seed}-{number}-{generation}"
        user, guest = (None, viewer) if kind.plan is None else (viewer, None)
        weeks = days // 7
        at_risk = self._uniform("risk", viewer) < kind.at_risk
        country = _pick(_COUNTRIES, self._uniform("country", viewer))
        for hour, probability in kind.visits.items():
            occasion = f"{viewer}/home/{day}/{hour}"
            if self._uniform("visit", occasion) < probability:
                device = _pick(kind.devices, self._uniform("device", occasion))
                yield Visit(
                    id=occasion,
                    at_us=self._at(day, hour) + int(self._uniform("second", occasion) * _HOUR),
                    surface="home",
                    trigger="session_start",
                    situation=_at_home(name, weeks, at_risk, country, device, hour),
                    user_id=user,
                    anonymous_id=guest,
                )
        if user and day % 7 == int(self._uniform("weekday", viewer) * 7):
            occasion = f"{viewer}/nudge/{day}"
            yield Visit(
                id=occasion,
                at_us=self._at(day, _REVIEW_HOUR) + int(self._uniform("second", viewer) * _HOUR),
                surface="nudge",
                trigger="weekly_review",
                situation=_at_review(
                    name, weeks, at_risk, _pick(_CONSENT, self._uniform("consent", viewer))
                ),
                user_id=user,
            )


def _risk(weeks: int, *, at_risk: bool) -> float:
    """What the churn model says: high, else a little higher for the new."""
    if at_risk:
        return _HIGH_RISK
    return 0.4 if weeks < 1 else 0.15


@lru_cache(maxsize=50_000)
def _at_home(
    name: str, weeks: int, at_risk: bool, country: str, device: str, hour: int
) -> Situation:
    context: Context = (
        ("device", device),
        ("hour", hour),
        ("weeks", weeks),
        ("country", country),
    )
    plan = _KINDS[name].plan
    if plan is not None:
        context += (("churn_risk", _risk(weeks, at_risk=at_risk)), ("plan", plan))
    return Situation(name, context)


@lru_cache(maxsize=5_000)
def _at_review(name: str, weeks: int, at_risk: bool, consent: bool | None) -> Situation:
    context: Context = (
        ("weeks", weeks),
        ("churn_risk", _risk(weeks, at_risk=at_risk)),
        ("favourite_hour", _KINDS[name].favourite_hour),
    )
    return Situation(name, context if consent is None else (*context, ("consent", consent)))


def _home_cases() -> Iterator[tuple[float, Situation]]:
    for name, kind in _KINDS.items():
        for (at_risk, r), (country, c), (device, d), (hour, h), weeks in product(
            ((True, kind.at_risk), (False, 1 - kind.at_risk)),
            _COUNTRIES.items(),
            kind.devices.items(),
            kind.visits.items(),
            range(kind.weeks),
        ):
            weight = kind.share / kind.weeks * r * c * d * h
            if weight > 0:
                yield weight, _at_home(name, weeks, at_risk, country, device, hour)


def _nudge_cases() -> Iterator[tuple[float, Situation]]:
    for name, kind in _KINDS.items():
        if kind.plan is None:
            continue
        for (at_risk, r), (consent, c), weeks in product(
            ((True, kind.at_risk), (False, 1 - kind.at_risk)), _CONSENT.items(), range(kind.weeks)
        ):
            yield kind.share / kind.weeks * r * c, _at_review(name, weeks, at_risk, consent)


@lru_cache(maxsize=20_000)
def _after_home(
    name: str,
    at_risk: bool,
    new: bool,
    device: str,
    hour: int,
    layout: str,
    hero: str,
    banner: str,
) -> Responses:
    """Watching within hours, cancelling within days."""
    kind = _KINDS[name]
    watches = kind.watches + _EVENING[hour] + kind.layout[layout]
    cancels = kind.cancels * (3 if at_risk else 1)
    if layout == "B":
        watches -= 0.06 if device == "phone" else 0
        cancels *= 0.85
    if hero == "value_prop":
        watches += 0.05 if new else -0.03
        cancels *= 0.9
    if hero == "save_offer":
        watches -= 0.02
        cancels *= 0.5
    if banner == "onboarding":
        watches += 0.06 if new else -0.04
        cancels *= 0.7 if new else 1
    # Deeper pages are browsed longer: their sessions start, and are known of, later. A session
    # after 26 hours is none of the visit's, and news that takes 30 hours come too late.
    slow = {"flat": 0.2, "compact": 0.1, "B": 0.5}[layout]
    short, middle, long = kind.sessions
    longer = 0.15 if layout == "B" and device == "tv" else 0.0
    lengths = (short - longer, middle, long + longer)
    sessions = tuple(zip(lengths, _SESSION_HOURS, strict=True))
    starts = ((0.99 - slow, 2 * _HOUR), (slow, 9 * _HOUR), (0.01, 26 * _HOUR))
    news = ((0.93, 5 * _MINUTE), (0.05, 50 * _MINUTE), (0.02, 30 * _HOUR))
    leaving = ((0.3, 3 * _DAY), (0.7, 6 * _DAY)) if hero == "save_offer" else _LEAVING
    return Responses(
        MappingProxyType(
            {
                "watch": _after(watches, sessions, starts, news),
                "cancel": _after(cancels, ((1.0, 1.0),), leaving, _LATE_NEWS),
            }
        )
    )


@lru_cache(maxsize=1_000)
def _after_nudge(name: str, at_risk: bool, channel: str) -> Responses:
    """Coming back within days, unsubscribing within hours or days."""
    kind = _KINDS[name]
    returns = kind.returns + kind.channel[channel] - (0.1 if at_risk else 0)
    delays = {
        "none": ((0.3, 6 * _HOUR), (0.7, 60 * _HOUR)),
        "email": ((0.4, 6 * _HOUR), (0.6, 30 * _HOUR)),
        "push": ((0.8, 2 * _HOUR), (0.2, 30 * _HOUR)),
    }[channel]
    prompt = ((1.0, 10 * _MINUTE),)
    leaving = ((0.7, _HOUR), (0.3, 3 * _DAY))
    return Responses(
        MappingProxyType(
            {
                "return_visit": _after(returns, ((1.0, 1.0),), delays, prompt),
                "unsubscribe": _after(kind.unsubscribes[channel], ((1.0, 1.0),), leaving, prompt),
            }
        )
    )


def _after(
    probability: float,
    values: Sequence[tuple[float, float]],
    delays: Sequence[tuple[float, int]],
    news: Sequence[tuple[float, int]],
) -> Distribution:
    """That something follows, with independent value, delay and time of the news."""
    happens = (
        (probability * v * d * n, Response(value, after, known))
        for (v, value), (d, after), (n, known) in product(values, delays, news)
    )
    return ((1 - probability, None), *happens)


T = TypeVar("T")


def _pick(shares: Mapping[T, float], u: float) -> T:
    """The key on whose part of [0, 1) the number falls."""
    *others, last = shares
    for key in others:
        u -= shares[key]
        if u < 0:
            return key
    return last


@lru_cache(maxsize=10_000)
def _moment(day: date, hour: int, time_zone: str) -> int:
    return to_microseconds(datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(time_zone)))
