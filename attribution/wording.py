"""How reports say what they found: alike for lift and evaluation, in tables, pages and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

NOT_SHOWN: Final = "no difference shown"
NO_CARRY_OVER: Final = (
    "No estimate here sees what carries over from one decision of a unit to its later ones, or "
    "from one unit to another."
)
GROUPS: Final = ("learned", "random", "usual", "none")
"""Decisions by what was learned, drawn at random, as business goes, and none at all."""
_DASH: Final = "–"


def moved(difference: float, p_value: float, alpha: float) -> str:
    """The verdict on a difference: ``higher``, ``lower`` or `NOT_SHOWN`; NaN shows none."""
    if not p_value < alpha:
        return NOT_SHOWN
    return "higher" if difference > 0 else "lower"


def ends(low: float | None, high: float | None) -> str:
    """An interval's two ends, a dash where there are none."""
    return _DASH if low is None or high is None else f"[{low:.4g}, {high:.4g}]"


def left_out(report: Mapping[str, Any]) -> list[str]:
    """What a report's JSON data counts as left out, a phrase for each count that is not zero."""
    said: list[str] = []
    for name, value in report.get("left_out", {}).items():
        counts = value.items() if isinstance(value, Mapping) else [("", value)]
        words = name.replace("_", " ")
        said += [f"{count:,} {words} {of}".strip() for of, count in counts if count]
    return said


def lift_advice(report: Mapping[str, Any]) -> list[str]:
    """What to do next after the results of a lift report's JSON data."""
    return _advised((f"{r['metric']} in {r['variant']}", r["advice"]) for r in report["results"])


def comparison_advice(report: Mapping[str, Any]) -> list[str]:
    """What to do next after the comparisons of an off-policy report's JSON data."""
    by: dict[tuple[str, str], list[str]] = {}
    for c in report["comparisons"]:
        by.setdefault((f"{c['target']} against {c['against']}", c["advice"]), []).append(
            c["estimator"]
        )
    return _advised(
        (f"{pair} by {' and '.join(names)}", advice) for (pair, advice), names in by.items()
    )


def _advised(rows: Iterable[tuple[str, str]]) -> list[str]:
    """What to do next, as sentences: each piece of advice once, after the places it is for."""
    places: dict[str, list[str]] = {}
    for place, advice in rows:
        places.setdefault(advice, []).append(place)
    return [f"{'; '.join(where)}: {advice}" for advice, where in places.items()]
