"""What an evaluation is asked, checked alike for logs in memory and for streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS

LOGGING = "logging"
ALL = "all"


def check_arguments(
    targets: Iterable[str],
    estimators: Sequence[str],
    known: Sequence[str],
    against: str | None,
    alpha: float,
) -> None:
    """Raise unless the targets' names, the estimators, ``against`` and ``alpha`` are valid."""
    names = list(targets)
    if not names:
        raise AttributionError("`targets` is empty. Name at least one target.")
    for reserved in (LOGGING, ALL):
        if reserved in names:
            meant = "the log's own policy" if reserved == LOGGING else "every one of them"
            raise AttributionError(f'`targets` has one called "{reserved}", {meant}. Rename.')
    if not estimators:
        raise AttributionError("`estimators` is empty. Name at least one.")
    for name in estimators:
        if name not in known:
            raise AttributionError(f"`estimators` names {name!r}. Known: {', '.join(known)}.")
        if list(estimators).count(name) > 1:
            raise AttributionError(f"`estimators` names {name!r} twice. Name each once.")
    if against is not None and against not in (LOGGING, ALL, *names):
        raise AttributionError(
            f'`against` is {against!r}. It must be "logging", "all" or one of: {", ".join(names)}.'
        )
    if not 0 < alpha < 1:
        raise AttributionError(f"`alpha` is {alpha}. It must lie in (0, 1).")


def check_choices(chosen: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Raise unless each field's value is among its choices."""
    for field, (value, choices) in chosen.items():
        if value not in choices:
            raise AttributionError(f"`{field}` is {value!r}. Known: {', '.join(choices)}.")


def check_tuning(tuning: Mapping[str, float | Sequence[float]]) -> None:
    """Raise unless estimators of single choices are given hyper-parameters that they have."""
    tunable = {name: each.tuning for name, each in ESTIMATORS.items() if each.tuning}
    for name, given in tuning.items():
        if name not in tunable:
            raise AttributionError(
                f"`tuning` names {name!r}, which has no hyper-parameter. "
                f"Those that have: {', '.join(tunable)}."
            )
        grid = [given] if isinstance(given, int | float) else list(given)
        least, most = (0.0, tunable[name].most)
        if not grid or not all(least <= each <= most for each in grid):
            raise AttributionError(
                f"`tuning.{name}` is {given}. It must be numbers from {least:g} to {most:g}."
            )


def asked_pairs(targets: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    """The pairs of targets, or of a target and the logging policy, that ``against`` asks for."""
    if against is None:
        return []
    if against == ALL:
        return list(combinations([*targets, LOGGING], 2))
    return [(name, against) for name in targets if name != against]
