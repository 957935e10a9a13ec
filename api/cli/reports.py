"""``evenhand lift`` and ``evenhand ope``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli.console import err, errors_told, out, print_json, print_table
from api.cli.options import DEFAULT_DATABASE, Json, Log, OptionalDatabase, Units
from attribution.pages import learning_page, lift_page, ope_page
from attribution.wording import GROUPS, comparison_advice, ends, left_out, lift_advice
from engine.errors import RequestError
from engine.ids import system_clock
from experiments import UnitRange, parse_units

Html = Annotated[
    Path | None, typer.Option("--html", help="File to which the report is written as a page.")
]
_VERDICT_STYLES = {"ok": "green", "weak": "yellow", "not_estimable": "red"}
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric; may be repeated.")]


def _database(database: str | None, log: Path | None) -> str | None:
    """The database named, else the usual one unless an export is."""
    return database if database is not None or log is not None else DEFAULT_DATABASE


def _selected(units: str | None) -> UnitRange | None:
    return None if units is None else parse_units(units)


def lift(
    *,
    experiment: Annotated[str | None, typer.Option(help="Id of the experiment.")] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Id of a holdout: what deciding at all is worth.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="learned, random, usual or none=VARIANT: what learning is worth."),
    ] = None,
    metric: Metrics = None,
    horizon: Annotated[
        Literal["always", "fixed"],
        typer.Option(help="Intervals that hold at every look, or at one that was planned."),
    ] = "always",
    over: Annotated[
        Literal["day", "week", "month"] | None,
        typer.Option(help="Report effects by the period of first assignment too."),
    ] = None,
    database: OptionalDatabase = None,
    log: Log = None,
    units: Units = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the sample-ratio check fails.")
    ] = False,
    json: Json = False,
    html: Html = None,
) -> None:
    """Lift of an experiment's variants, of a holdout, or of learning apart from acting."""
    with errors_told(as_json=json):
        from engine.lift_reports import (  # noqa: PLC0415  heavy: frames
            Asked,
            holdout_report,
            learning_report,
            lift_report,
        )
        from engine.logsource import open_log  # noqa: PLC0415  heavy: frames

        groups = _groups(group or [])
        if experiment is None and (holdout is None or groups):
            raise RequestError("experiment", "is missing; name it, or a holdout alone")
        if experiment is not None and holdout is not None and not groups:
            said = 'is given beside an experiment; add its groups, as in "learned=bandit"'
            raise RequestError("holdout", said)
        asked = Asked(system_clock(), metric or (), _selected(units), horizon=horizon, over=over)
        with closing(open_log(_database(database, log), log)) as source:
            if experiment is None:
                report = holdout_report(source, holdout or "", asked)
            elif groups:
                report = learning_report(source, experiment, groups, holdout, asked)
            else:
                report = lift_report(source, experiment, asked)
        _write(html, learning_page if groups else lift_page, report)
    if json:
        print_json(report)
    elif groups:
        print_learning(report)
    else:
        print_lift(report)
    parts = report["pairs"].values() if groups else [report]
    if strict and any(part["srm"]["verdict"] == "failed" for part in parts):
        raise typer.Exit(1)


def _groups(given: Sequence[str]) -> dict[str, str]:
    """The variant that is each group."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, variant = text.partition("=")
        if not (equals and variant and name in GROUPS):
            said = f'is "{text}"; write one of {", ".join(GROUPS)}, "=" and a variant'
            raise RequestError("group", said)
        if name in found:
            raise RequestError("group", f"names {name} twice; name each group once")
        found[name] = variant
    return found


def _write(
    file: Path | None, page: Callable[[dict[str, Any]], str], report: dict[str, Any]
) -> None:
    """Write a report as a page, if a file is named."""
    if file is None:
        return
    try:
        file.write_text(page(report), encoding="utf-8")
    except OSError as error:
        said = f'cannot write "{file}": {error.strerror}; name a file that can be written'
        raise RequestError("html", said) from error


def print_lift(report: dict[str, Any]) -> None:
    """Print a lift report: the sample-ratio check first, then a row for each metric and variant."""
    _print_srm("sample ratio", report["srm"])
    of = (
        report["experiment"]
        if "experiment" in report
        else f"all that {report['holdout']} holds out"
    )
    print_table(f"Lift of {of}", ("metric", *_LIFT), [_lift_row(r) for r in report["results"]])
    if report["periods"]:
        print_table(
            "Over time, by first assignment",
            ("period", "of", "metric", "variant", "units", "difference", "95 %"),
            [
                (
                    *(p[name] for name in ("period", "scope", "metric", "variant", "n")),
                    p["difference"],
                    ends(p["low"], p["high"]),
                )
                for p in report["periods"]
            ],
        )
    for finding in report["findings"]:
        out.print(f"[red]finding[/]: {finding}", highlight=False)
    for guard in report["guardrails"]:
        style = {"held": "green", "broken": "red"}.get(guard["verdict"], "yellow")
        out.print(
            f"guardrail {guard['metric']} in {guard['variant']}: [{style}]{guard['verdict']}[/] "
            f"(better is {guard['direction']}, margin {guard['margin']:g})",
            highlight=False,
        )
    for trend in report["trends"]:
        place = f"{trend['metric']} in {trend['variant']}"
        out.print(f"{place} over time: {trend['verdict']}", highlight=False)
    for said in lift_advice(report):
        out.print(said, highlight=False)
    _print_notes(report)


_LIFT = (
    *("variant", "units", "mean", "baseline"),
    *("difference", "95 %", "relative", "verdict"),
)


def _lift_row(r: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *(r[name] for name in ("metric", "variant", "n", "mean", "baseline_mean", "difference")),
        ends(r["low"], r["high"]),
        _percent(r["relative"], r["relative_low"], r["relative_high"]),
        r["verdict"],
    )


def _print_srm(name: str, srm: dict[str, Any]) -> None:
    p_value = "" if srm["p_value"] is None else f" (p = {srm['p_value']:.3g})"
    style = "red" if srm["verdict"] == "failed" else "green"
    out.print(f"{name}: [{style}]{srm['verdict']}[/]{p_value}", highlight=False)


def print_learning(report: dict[str, Any]) -> None:
    """Print what learning and acting were worth: a row for each pair of groups and metric."""
    for name, pair in report["pairs"].items():
        _print_srm(f"sample ratio of {name}", pair["srm"])
    print_table(
        f"What learning and acting were worth in {report['experiment']}",
        ("worth of", "metric", *_LIFT),
        [(name, *_lift_row(r)) for name, pair in report["pairs"].items() for r in pair["results"]],
    )
    for name, pair in report["pairs"].items():
        for trend in pair["trends"]:
            out.print(f"{name}, {trend['metric']} over time: {trend['verdict']}", highlight=False)
        for finding in pair["findings"]:
            out.print(f"[red]finding[/] in {name}: {finding}", highlight=False)
    _print_notes(report)


def ope(
    *,
    surface: Annotated[str, typer.Option(help="Surface of the slot.")],
    slot: Annotated[str, typer.Option(help="Slot whose policy is asked about.")],
    target: Annotated[
        list[str],
        typer.Option(help="POLICY, POLICY@SNAPSHOT, ACTION, uniform or a file; may be repeated."),
    ],
    against: Annotated[
        str | None,
        typer.Option(help="Compare every target with this one, with logging, or all with all."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="A metric in place of the reward.")] = None,
    database: OptionalDatabase = None,
    log: Log = None,
    units: Units = None,
    json: Json = False,
    html: Html = None,
) -> None:
    """Off-policy values of targets for one slot, from what was logged."""
    with errors_told(as_json=json):
        from engine.logsource import open_log  # noqa: PLC0415  heavy: frames
        from engine.reports import ope_report  # noqa: PLC0415

        with closing(open_log(_database(database, log), log)) as source:
            report = ope_report(
                source,
                surface,
                slot,
                target,
                against=against,
                metric=metric,
                units=_selected(units),
                as_of_us=system_clock(),
            )
        _write(html, ope_page, report)
    if json:
        print_json(report)
    else:
        print_ope(report)


def print_ope(report: dict[str, Any]) -> None:
    """Print an off-policy report: diagnostics first, then values, differences and what to do."""
    seen = report["diagnostics"]
    print_table(
        "Diagnostics",
        ("target", "verdict", "effective units", "largest share", "largest weight", "mean weight"),
        [
            (
                name,
                d["verdict"],
                d["ess"],
                d["max_weight_share"],
                d["max_weight"],
                d["mean_weight"],
            )
            for name, d in seen.items()
        ],
    )
    for name, d in seen.items():
        style = _VERDICT_STYLES[d["verdict"]]
        out.print(f"{name} is [{style}]{d['verdict']}[/]: {d['reason']}", highlight=False)
    place = f"{report['surface']}.{report['slot']}"
    print_table(
        f"Value of targets for {place} ({report['metric']} per {report['row']})",
        ("target", "estimator", "value", "se", "95 %", "by", "rows", "units", "verdict"),
        [
            (
                r["target"],
                r["estimator"],
                r["value"],
                r["se"],
                ends(r["low"], r["high"]),
                r["interval"],
                r["n"],
                r["n_units"],
                seen[r["target"]]["verdict"],
            )
            for r in report["results"]
        ],
    )
    compared = report["comparisons"]
    if compared:
        print_table(
            "Paired differences on the same log",
            (
                *("target", "against", "estimator", "difference", "95 %"),
                *("all at once", "p adjusted", "by", "verdict"),
            ),
            [
                (
                    c["target"],
                    c["against"],
                    c["estimator"],
                    c["difference"],
                    ends(c["low"], c["high"]),
                    ends(c["low_adjusted"], c["high_adjusted"]),
                    c["p_adjusted"],
                    c["interval"],
                    c["verdict"],
                )
                for c in compared
            ],
        )
        for said in comparison_advice(report):
            out.print(said, highlight=False)
    else:
        out.print("compare with what was logged: --against logging", highlight=False)
    _print_notes(report)


def _print_notes(report: dict[str, Any]) -> None:
    left = left_out(report)
    if left:
        err.print(f"left out: {', '.join(left)}", highlight=False)
    for note in report["notes"]:
        err.print(f"note: {note}", highlight=False)


def _percent(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    ends = "" if low is None or high is None else f" [{low:+.1%}, {high:+.1%}]"
    return f"{value:+.1%}{ends}"
