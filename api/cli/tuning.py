"""``evenhand tune``: choosing a slot's policy on its log."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.console import errors_told, out, print_json, print_table, progress
from api.cli.options import DEFAULT_DATABASE, Json, Log, OptionalDatabase, Units
from attribution.wording import ends
from engine.errors import RequestError
from engine.ids import system_clock
from engine.workspace import written
from experiments import parse_units


def tune(
    *,
    surface: Annotated[str, typer.Option(help="Surface of the slot.")],
    slot: Annotated[str, typer.Option(help="Slot to choose a policy for.")],
    database: OptionalDatabase = None,
    log: Log = None,
    units: Units = None,
    floor: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exploration floor it will serve with.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    to: Annotated[Path | None, typer.Option(help="YAML file to write the choice to.")] = None,
    json: Json = False,
) -> None:
    """Choose kind, features, regularisation and exploration of a slot's policy on its log."""
    with errors_told(as_json=json):
        from engine.logsource import open_log  # noqa: PLC0415  heavy: frames
        from engine.tuning import tune_slot  # noqa: PLC0415

        if to is not None and to.exists():
            raise RequestError("to", f'is "{to}", which exists; name a new file')
        address = database or (None if log else DEFAULT_DATABASE)
        with closing(open_log(address, log)) as source, progress("living") as advance:
            report = tune_slot(
                source,
                surface,
                slot,
                floor=floor,
                units=None if units is None else parse_units(units),
                as_of_us=system_clock(),
                seed=seed,
                advance=advance,
            )
        text = written({"policies": report["policies"]})
        if to is not None:
            to.write_text(text, encoding="utf-8")
    if json:
        print_json(report)
    else:
        _print(report, text, to)


def _print(report: dict[str, Any], text: str, to: Path | None) -> None:
    print_table(
        f"Choices for {report['surface']}.{report['slot']} in worlds fitted to the log",
        ("choice", "mean", "gain over the default", "se", "worlds"),
        [(t["choice"], t["mean"], t["gain"], t["se"], t["lives"]) for t in report["tried"]],
    )
    later = report["later"]
    print_table(
        f"On {later['rows']:,} later rows that the search did not see",
        ("policy", "value", "95 %", "rows learned from"),
        [
            (name, later[key]["mean"], ends(later[key]["low"], later[key]["high"]),
             later[key]["accepted"])
            for name, key in ((report["winner"], "winner"), ("the default", "default"))
        ],
    )  # fmt: skip
    if report["is_default"]:
        out.print("nothing is shown to be better than the default, which needs no tuning")
    else:
        seen = later["difference"]
        told = f"difference {seen['mean']:+.4g}, {ends(seen['low'], seen['high'])}"
        out.print(f"take {report['winner']}: {told}", highlight=False)
    if to is None:
        typer.echo(text, nl=False)
    else:
        out.print(f"written to {to}", highlight=False)
