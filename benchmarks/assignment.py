"""Assignment and rules, each beside the least that Python could do for the same answer.

    python -m benchmarks.assignment

Prints microseconds of processor time a call, as median and spread of interleaved rounds, and the
median and spread of its ratio to the floor's of the same round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from hashlib import md5

from engine.rules import parse
from experiments import Design, Experiment, Holdout, Pin, UsePolicy, Variant, assign, bucket

CALLS = 20_000
ROUNDS = 15


def main() -> None:
    """Runs both comparisons and prints them."""
    compare_assignment()
    compare_rules()


def compare_assignment() -> None:
    """One holdout and one layer against as many bare MD5 calls as the design needs at most."""
    variants = (
        Variant("control", 1, {"home.layout": Pin("flat")}),
        Variant("bandit", 1, {"home.layout": UsePolicy("home_layout")}),
    )
    whole = Design((Holdout("global", 0.05),), (Experiment("exp", "home", (0, 1), 1, variants),))
    ramped = Design((Holdout("global", 0.05),), (Experiment("exp", "home", (0, 1), 0.9, variants),))
    units = [f"u:{i}" for i in range(CALLS)]

    def run_md5() -> None:
        for unit in units:
            md5(f"layer.homepage:{unit}".encode()).digest()

    def run_bucket() -> None:
        for unit in units:
            bucket("layer.homepage", unit)

    def run_whole() -> None:
        for unit in units:
            assign(whole, unit, "home")

    def run_ramped() -> None:
        for unit in units:
            assign(ramped, unit, "home")

    report(
        "assignment",
        {
            "one bare md5 (floor)": run_md5,
            "bucket": run_bucket,
            "assign: holdout, layer, variant": run_whole,
            "assign: holdout, layer, ramp, variant": run_ramped,
        },
    )


def compare_rules() -> None:
    """A rule of three clauses, traced, against the Python expression that it would be."""
    text = 'weeks >= 1 && country in ["DE", "FR"] && device == "tv"'
    types = {"weeks": "integer", "country": "string", "device": "string"}
    rule, undeclared = parse(text, types), parse(text)
    attributes = {"weeks": 3, "country": "DE", "device": "tv"}

    def run_python() -> None:
        for _ in range(CALLS):
            (
                attributes["weeks"] >= 1  # type: ignore[operator]  # the bare expression
                and attributes["country"] in ("DE", "FR")
                and attributes["device"] == "tv"
            )

    def run_declared() -> None:
        for _ in range(CALLS):
            rule.evaluate(attributes)

    def run_undeclared() -> None:
        for _ in range(CALLS):
            undeclared.evaluate(attributes)

    report(
        "a rule of three clauses, all reached",
        {
            "the bare expression, no trace (floor)": run_python,
            "rule with declared types, traced": run_declared,
            "rule without declarations, traced": run_undeclared,
        },
    )


def report(title: str, runs: dict[str, Callable[[], None]]) -> None:
    """Times each of ``runs`` in turn, round by round, the first as the floor."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            times[name].append((time.thread_time() - start) / CALLS * 1e6)
    floor = next(iter(times.values()))
    print(f"{title} ({ROUNDS} rounds of {CALLS:,} calls)")
    for name, spent in times.items():
        ratios = [one / least for one, least in zip(spent, floor, strict=True)]
        print(
            f"  {name:40} {statistics.median(spent):6.2f} µs  [{min(spent):.2f}, {max(spent):.2f}]"
            f"  {statistics.median(ratios):5.1f} × floor [{min(ratios):.1f}, {max(ratios):.1f}]"
        )


if __name__ == "__main__":
    main()
