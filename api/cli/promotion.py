"""``evenhand snapshots``, ``promote``, ``rollback``: what serves, and changing that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.console import errors_told, out, print_json, print_table
from api.cli.data import settled
from api.cli.options import DEFAULT_DATABASE, Database, Json
from attribution.wording import ends
from engine.errors import ConflictError, EngineError
from engine.ids import system_clock
from engine.lineage import lineages
from engine.lineage import rollback as roll_back
from engine.log import PromotionEntry, Refused
from engine.revisions import Revisions
from engine.store import Store
from engine.workspace import Workspace, written

LearnerId = Annotated[str, typer.Argument(help="A learner, as `evenhand snapshots` lists them.")]


def snapshots(
    *,
    database: Database = DEFAULT_DATABASE,
    learner: Annotated[str | None, typer.Option(help="One learner only.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of each lineage's snapshots.")] = 10,
    json: Json = False,
) -> None:
    """Show each learner's snapshots and promotions, and what of them serves."""
    with errors_told(as_json=json), Store(database) as store:
        found = lineages(store, _workspace(store))
    shown = {id_: each for id_, each in found.items() if learner in (None, id_)}
    if json:
        print_json(shown)
        return
    for id_, each in shown.items():
        serves = each["serves"]
        print_table(
            f"{id_}: {serves['what']} serves{', pinned' if serves['pinned'] else ''}",
            ("snapshot", "of", "grew from", "learned", "from what closed by", ""),
            [
                (
                    row["digest"][:12],
                    row["of"],
                    (row["parent"] or "–")[:12],
                    row["learned"],
                    row["until"],
                    "← serves" if row["digest"] == serves["snapshot"] else "",
                )
                for row in each["snapshots"][:last]
            ],
        )
        for step in each["promotions"]:
            reason = (step["report"] or {}).get("reason", "")
            out.print(f"{step['at']} {step['what']} {reason}", highlight=False, markup=False)


def promote(
    learner: LearnerId, *, database: Database = DEFAULT_DATABASE, json: Json = False
) -> None:
    """Judge a learner's candidate by the log, once; it serves only if it passes."""
    with errors_told(as_json=json):
        from engine.promotion import attempt  # noqa: PLC0415  heavy: frames

        store = Store(database, writer="evenhand promote")
        try:
            workspace = _workspace(store)
            now = system_clock()
            warnings: list[str] = []
            found = attempt(
                store,
                workspace,
                learner,
                until_us=settled(store, now),
                now_us=now,
                revisions=Revisions(store),
                warn=warnings.append,
            )
            if found.entry is not None:
                _stored(store, found.entry)
        finally:
            store.close()
    report = {**found.report, "warnings": warnings}
    if json:
        print_json(report)
    else:
        _print_attempt(report)
    if report["verdict"] != "promoted":
        raise typer.Exit(1)


def rollback(
    learner: LearnerId,
    *,
    database: Database = DEFAULT_DATABASE,
    to: Annotated[
        str | None, typer.Option(help="Hold it at this snapshot; default: undo the last change.")
    ] = None,
    json: Json = False,
) -> None:
    """Serve what served before the last promotion, or hold a learner at an earlier snapshot."""
    with errors_told(as_json=json):
        store = Store(database, writer="evenhand rollback")
        try:
            workspace = _workspace(store)
            _stored(store, roll_back(store, workspace, learner, to, system_clock()))
            serves = lineages(store, workspace)[learner]["serves"]
        finally:
            store.close()
    if json:
        print_json({"learner": learner, **serves})
        return
    held = "held at" if serves["pinned"] else "at"
    out.print(
        f"{learner}: {serves['what']} serves, {held} {(serves['snapshot'] or 'no snapshot')[:12]}",
        highlight=False,
    )


def _workspace(store: Store) -> Workspace:
    found = Revisions(store).latest()
    if found is None:
        raise EngineError("the database holds no workspace yet; serve or import one first")
    return found


def _stored(store: Store, entry: PromotionEntry) -> None:
    (result,) = store.write([entry], system_clock())
    if isinstance(result, Refused):
        raise ConflictError(result.field, result.message)


def _print_attempt(report: dict[str, Any]) -> None:
    style = "green" if report["verdict"] == "promoted" else "yellow"
    out.print(f"[{style}]{report['verdict']}[/]: {report['reason']}", highlight=False)
    if "reward" in report:
        print_table(
            f"Attempt {report['attempt']} at level {report['level']:.3g}, {report['rows']:,} rows",
            ("metric", "difference", "between", "shown", "why"),
            [
                (row["metric"], row["difference"], ends(row["low"], row["high"]), *rest)
                for row, *rest in (
                    (report["reward"], report["verdict"] == "promoted", ""),
                    *((row, row["holds"], row["why"]) for row in report["guardrails"]),
                )
            ],
        )
    if "challenger" in report:
        out.print("Give it a share and judge it by lift; add to the workspace:", highlight=False)
        typer.echo(written(report["challenger"]))
    for warning in report["warnings"]:
        out.print(f"warning: {warning}", highlight=False, markup=False)
