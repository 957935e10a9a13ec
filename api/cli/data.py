"""``evenhand import``, ``export``, ``learn``, ``replay``, ``forget``: commands on the log."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.console import err, errors_told, out, print_json, print_table, progress
from api.cli.options import DEFAULT_DATABASE, Database, Json, Units
from engine.errors import EngineError, StoreError
from engine.ids import random_token, system_clock
from engine.log import Entry, Settled, SettleEntry
from engine.models import initial_snapshot, newest_sound
from engine.replay import replay as replay_one
from engine.revisions import Revisions
from engine.store import Store
from engine.store import read as ask
from engine.workspace import load_workspace
from experiments import parse_units


def import_(
    file: Annotated[Path, typer.Argument(help="CSV (also compressed) or Parquet.")],
    *,
    mapping: Annotated[Path, typer.Option(help="YAML that says what the columns are.")],
    database: Database = DEFAULT_DATABASE,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Workspace of the rows; default: the database's, else the mapping's."),
    ] = None,
    json: Json = False,
) -> None:
    """Import somebody else's log as decisions and outcomes, to measure and to learn from."""
    with errors_told(as_json=json):
        from engine.importing import (  # noqa: PLC0415  heavy: frames
            import_table,
            read_mapping,
            read_table,
        )

        parts = read_mapping(mapping)
        table = read_table(file)
        store = Store(database, writer="evenhand import")
        try:
            found = load_workspace(workspace) if workspace else Revisions(store).latest()
            began = time.perf_counter()
            # The table and the modules stay; without this each collection looks at them again.
            gc.freeze()
            with progress("importing", len(table)) as advance:
                imported = import_table(
                    store,
                    table,
                    parts,
                    source=file.name,
                    workspace=found,
                    clock=system_clock,
                    advance=advance,
                )
            store.checkpoint()
        finally:
            store.close()
    if json:
        print_json(imported)
        return
    out.print(
        f"{imported.rows:,} rows: {imported.decisions:,} new decisions, {imported.outcomes:,} new "
        f"outcomes in {time.perf_counter() - began:.1f} s",
        highlight=False,
    )


def export(
    *,
    to: Annotated[Path, typer.Option(help="Folder to write to, or to go on writing to.")],
    database: Database = DEFAULT_DATABASE,
    full: Annotated[bool, typer.Option("--full", help="Whole records too.")] = False,
    json: Json = False,
) -> None:
    """Export the log as Parquet, for reports elsewhere and for analysis."""
    with errors_told(as_json=json):
        from engine.exporting import export as export_log  # noqa: PLC0415  heavy: Arrow

        with Store(database) as store:
            counts = store.read(ask.counts)
            # As of an import: the modules stay, and need not be looked at by each collection.
            gc.freeze()
            with progress("exporting", counts["decisions"] + counts["outcomes"]) as advance:
                written = export_log(store, to, full=full, advance=advance)
    if json:
        print_json(written)
        return
    for name, count in written.items():
        out.print(f"{count:,} {name}", highlight=False)


def learn(
    *,
    database: Database = DEFAULT_DATABASE,
    units: Units = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Begin anew at the log's first decision.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until interrupted.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between runs.")] = 5.0,
    json: Json = False,
) -> None:
    """Learn from matured decisions and store snapshots; a running server does this itself."""
    with errors_told(as_json=json):
        store = Store(database, writer="evenhand learn")
        try:
            while True:
                if not store.lead():
                    raise StoreError("another process learns from this log; let it, or stop it")
                report = _learn_once(store, units, refit=refit)
                if json:
                    print_json(report)
                else:
                    _print_learned(report)
                if not follow:
                    return
                refit = False
                time.sleep(every)
        except KeyboardInterrupt:
            return
        finally:
            store.checkpoint()
            store.close()


def _learn_once(store: Store, units: str | None, *, refit: bool) -> list[dict[str, Any]]:
    from engine.learning import learn as learn_one  # noqa: PLC0415  keeps other commands light

    revisions = Revisions(store)
    workspace = revisions.latest()
    if workspace is None:
        raise EngineError("the database holds no workspace yet; serve or import one first")
    chosen = None if units is None else parse_units(units)
    report = []
    for learner in workspace.pupils:
        warnings: list[str] = []
        now = system_clock()
        until = settled(store, now)
        if newest_sound(store, learner, warnings.append) is None:
            store.write([initial_snapshot(learner, now)], now)
        with progress(f"learning {learner.id}") as advance:
            learned = learn_one(
                store,
                workspace,
                learner,
                until_us=until,
                now_us=now,
                revisions=revisions,
                units=chosen,
                refit=refit,
                warn=warnings.append,
                advance=advance,
            )
        if learned:
            store.write([learned.snapshot], now)
        newest = None if learned else newest_sound(store, learner, warnings.append)
        policy = learned.policy if learned else newest and newest[1]
        slot = workspace.surfaces[learner.surface].slots[learner.slot]
        winner = policy.winner(tuple(slot.actions.values())) if policy else None
        report.append(
            {
                "learner": learner.id,
                "snapshot": learned.snapshot.digest if learned else None,
                "learned": learned.learned if learned else 0,
                "passed_over": learned.skipped if learned else 0,
                "winner": winner._asdict() if winner else None,
                "warnings": warnings,
            }
        )
    return report


def settled(store: Store, now_us: int) -> int:
    """The time up to which the log is whole for good."""
    (result,) = store.write([SettleEntry(now_us - store.settle_after_us)], now_us)
    if not isinstance(result, Settled):
        raise EngineError(f"unexpected result {type(result).__name__}")
    return result.until_us


def _print_learned(report: list[dict[str, Any]]) -> None:
    print_table(
        "Learned",
        ("learner", "decisions", "passed over", "snapshot"),
        [
            (r["learner"], r["learned"], r["passed_over"], (r["snapshot"] or "unchanged")[:12])
            for r in report
        ],
    )
    for entry in report:
        if winner := entry["winner"]:
            out.print(
                f"{entry['learner']}: {winner['action']} is the best with probability "
                f"{winner['probability']:.3f}"
                + (", settled" if winner["settled"] else ", not settled yet"),
                highlight=False,
            )
        for warning in entry["warnings"]:
            err.print(f"warning: {warning}", highlight=False)


def replay(
    decision_id: Annotated[
        list[str] | None, typer.Argument(help="Decisions to make again; default: the last ones.")
    ] = None,
    *,
    database: Database = DEFAULT_DATABASE,
    last: Annotated[int, typer.Option(min=1, help="How many of the last decisions.")] = 100,
    json: Json = False,
) -> None:
    """Make decisions again from their records and compare them, byte for byte."""
    with errors_told(as_json=json):
        results = []
        with Store(database) as store:
            revisions = Revisions(store)
            ids = decision_id or store.read(lambda c: ask.last_replayable(c, last))
            if not ids:
                raise EngineError("the database holds no decision made here; nothing to replay")
            with progress("replaying", len(ids)) as advance:
                for id_ in ids:
                    results.append(replay_one(store, revisions, id_))
                    advance(1)
    if json:
        print_json(results)
    differing = [r for r in results if not r.identical]
    if not json:
        out.print(
            f"{len(results) - len(differing):,} of {len(results):,} decisions came out identical",
            highlight=False,
        )
        for result in differing:
            for difference in result.differences:
                out.print(
                    f"  {result.decision_id} {difference.field}: "
                    f"{difference.stored!r} → {difference.replayed!r}",
                    highlight=False,
                    markup=False,
                )
    if differing:
        raise typer.Exit(1)


def forget(
    *,
    user_id: Annotated[str | None, typer.Option(help="A person's user id.")] = None,
    anonymous_id: Annotated[str | None, typer.Option(help="A person's anonymous id.")] = None,
    database: Database = DEFAULT_DATABASE,
    json: Json = False,
) -> None:
    """Erase a person from the log, which counts as before; a running server does this itself."""
    with errors_told(as_json=json):
        from engine.forgetting import Person  # noqa: PLC0415  keeps other commands light
        from engine.forgetting import forget as forget_one  # noqa: PLC0415

        person = Person(user_id, anonymous_id)
        store = Store(database, writer="evenhand forget")
        revisions = Revisions(store)

        def write(entry: Entry) -> None:
            store.write([entry], system_clock())

        try:
            if revisions.latest() is None:
                raise EngineError("the database holds no log; name the one that the person is in")
            with progress("forgetting"):
                found = forget_one(store, revisions, person, write=write, new_token=random_token)
        finally:
            store.close()
    if json:
        print_json(found)
        return
    out.print(f"erased {found.decisions:,} decisions, {found.outcomes:,} outcomes", highlight=False)
    for option, linked in (
        ("--user-id", found.linked_user_ids),
        ("--anonymous-id", found.linked_anonymous_ids),
    ):
        for id_ in linked:
            err.print(
                f"stood beside {option} {id_}, whose own history stays until it is forgotten",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
