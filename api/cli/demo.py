"""``evenhand demo`` and ``evenhand simulate``: the engine under simulated viewers."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from api.cli.console import err, errors_told, out, shown
from api.cli.options import DEFAULT_DATABASE, Database
from api.cli.reports import print_lift, print_ope
from engine.errors import EngineError
from engine.explain import explain
from engine.ids import rfc3339
from engine.replay import replay
from engine.revisions import Revisions
from engine.simulate import Progress, StreamingWorld, run
from engine.store import Store
from engine.store import read as ask
from engine.workspace import load_workspace


def _example() -> Path:
    """The streaming service's workspace, from where the wheel puts it or the checkout keeps it."""
    root = Path(__file__).parents[2]
    shipped = root / "engine" / "simulate" / "workspace"
    return shipped if shipped.is_dir() else root / "examples" / "streaming" / "workspace"


EXAMPLE = _example()

Days = Annotated[int, typer.Option(min=1, max=3_650, help="Days to live.")]
Viewers = Annotated[int, typer.Option(min=1, max=1_000_000, help="Viewers in the world.")]
Seed = Annotated[int, typer.Option(help="Seed of the world.")]
Folder = Annotated[Path, typer.Option(help="Workspace; its surfaces are the streaming service's.")]


def simulate(
    *,
    database: Database = DEFAULT_DATABASE,
    workspace: Folder = EXAMPLE,
    days: Days = 28,
    viewers: Viewers = 1_000,
    seed: Seed = 1,
) -> None:
    """Let simulated viewers of a streaming service meet a workspace, day by day."""
    with errors_told():
        store = Store(database, writer="evenhand simulate")
        try:
            _live(store, workspace, days, viewers, seed)
        finally:
            store.close()


def demo(
    *,
    database: Annotated[
        str | None, typer.Option(help="Where to keep the log; default: a temporary file.")
    ] = None,
    days: Days = 28,
    viewers: Viewers = 1_000,
    seed: Seed = 1,
) -> None:
    """Decide, log, learn and prove on the example streaming service, all in a minute."""
    with tempfile.TemporaryDirectory(prefix="evenhand-") as folder, errors_told():
        url = database or f"sqlite:///{folder}/demo.db"
        store = Store(url, writer="evenhand demo")
        try:
            out.print(f"[bold]Decide, log, learn[/]: {viewers:,} viewers, {days} days, one engine")
            as_of = _live(store, EXAMPLE, days, viewers, seed)
            _show_one(store)
        finally:
            store.close()
        _prove(url, as_of)
        if database:
            command = f"evenhand serve --workspace {EXAMPLE} --database {database}"
            out.print(f"\nServe what was learned: [bold]{command}[/]", soft_wrap=True)


def _live(store: Store, workspace: Path, days: int, viewers: int, seed: int) -> int:
    """Live the world and show each day as it ends; the simulated time at the last one's end."""
    now = 0
    world = StreamingWorld(seed=seed, viewers=viewers)
    warnings: list[str] = []
    with Live(console=out, refresh_per_second=8) as live:
        for day in run(world, load_workspace(workspace), store, days=days, warn=warnings.append):
            live.update(_table(day))
            now = day.now_us
    for warning in warnings:
        err.print(f"warning: {warning}", highlight=False)
    return now


def _table(day: Progress) -> Table:
    """How things stand at the end of a simulated day."""
    table = Table(
        title=f"day {day.day + 1}, {rfc3339(day.now_us)[:10]}: {day.decisions:,} decisions, "
        f"{day.outcomes:,} outcomes, {day.duplicates:,} sent twice",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("surface")
    table.add_column("how it came about")
    table.add_column("matured decisions", justify="right")
    table.add_column("mean reward", justify="right")
    for mean in day.means:
        path = mean.path or "outside experiments"
        table.add_row(mean.surface, path, shown(mean.decisions), f"{mean.reward:.3f}")
    for id_, model in day.serving.models.items():
        if model.snapshot:
            table.add_row("", f"[dim]{id_}[/]", "", f"[dim]{model.snapshot[:12]}[/]")
    return table


def _show_one(store: Store) -> None:
    """One decision, explained and made again."""
    ids = store.read(lambda c: ask.last_replayable(c, 1))
    if not ids:
        raise EngineError("no viewer came; give more --days or --viewers")
    revisions = Revisions(store)
    document = explain(store, revisions, ids[0])
    out.print(f"\n[bold]Why?[/] decision {ids[0]} on {document['surface']}", highlight=False)
    for choice in document["choices"]:
        out.print(
            f"  {choice['slot']}: [bold]{choice['action']}[/] with p = {choice['propensity']:.3f} "
            f"({choice['reason']})",
            highlight=False,
        )
        for rule in choice["rules"]:
            if rule["removed"]:
                clauses = ", ".join(
                    f"{c['clause']} is {c['verdict']}" for c in rule.get("clauses", ())
                )
                removed = ", ".join(rule["removed"])
                out.print(f"    not {removed}: {rule['reason']} ({clauses})", highlight=False)
    identical = replay(store, revisions, ids[0]).identical
    out.print(f"  replayed: {'identical to the byte' if identical else 'DIFFERENT'}")


def _prove(url: str, as_of: int) -> None:
    """Lift of the bandit's experiment, and what other policies would have been worth."""
    from engine.lift_reports import Asked, lift_report  # noqa: PLC0415  heavy: frames
    from engine.logsource import open_log  # noqa: PLC0415  heavy: frames
    from engine.reports import ope_report  # noqa: PLC0415

    out.print("\n[bold]Prove[/]")
    targets = ["flat", "B", "uniform", "home_layout"]
    with closing(open_log(url, None)) as source:
        print_lift(lift_report(source, "layout_bandit", Asked(as_of_us=as_of)))
        print_ope(ope_report(source, "home", "layout", targets, against="logging", as_of_us=as_of))
