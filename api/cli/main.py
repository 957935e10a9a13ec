"""The commands; each reads its options, calls the engine, and prints what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import data, demo, keys, promotion, recommender, reports, serving, tuning
from api.cli.console import err, out, print_json
from engine.errors import ConfigurationError, Fault
from engine.version import __version__
from engine.workspace import load_workspace

app = typer.Typer(
    name="evenhand",
    help="Decide, log, learn, prove: experimentation and contextual-bandit decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serving.serve)
app.add_typer(keys.app, name="keys")
app.command("demo")(demo.demo)
app.command("simulate")(demo.simulate)
app.command("import")(data.import_)
app.command("export")(data.export)
app.command("learn")(data.learn)
app.command("tune")(tuning.tune)
app.command("snapshots")(promotion.snapshots)
app.command("promote")(promotion.promote)
app.command("rollback")(promotion.rollback)
app.command("replay")(data.replay)
app.command("forget")(data.forget)
app.command("load-items")(recommender.load_items)
app.command("load-interactions")(recommender.load_interactions)
app.command("train-recs")(recommender.train_recs)
app.command("eval-recs")(recommender.eval_recs)
app.command("lift")(reports.lift)
app.command("ope")(reports.ope)


@app.callback(invoke_without_command=True)
def version(
    *, show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Say which version this is."""
    if show:
        out.print(f"evenhand {__version__}", highlight=False)
        raise typer.Exit


@app.command("check")
def check(
    workspace: Annotated[Path, typer.Argument(help="Folder of the workspace's YAML files.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a workspace: every fault at once, each with file, line, field, value and repair."""
    try:
        found = load_workspace(workspace)
    except ConfigurationError as error:
        if json:
            print_json({"ok": False, "faults": [_plain(fault) for fault in error.faults]})
        else:
            for fault in error.faults:
                err.print(f"✗ {fault}", highlight=False, soft_wrap=True, markup=False)
            count = len(error.faults)
            err.print(f"{count} fault{'s' if count > 1 else ''} in {workspace}", highlight=False)
        raise typer.Exit(2) from None
    summary: dict[str, Any] = {
        "ok": True,
        "revision": found.revision,
        "surfaces": list(found.surfaces),
        "policies": list(found.policies),
        "experiments": [e.id for e in found.design.experiments],
        "learners": list(found.learners),
    }
    if json:
        print_json(summary)
        return
    out.print(f"✓ {workspace} is sound; revision {found.revision[:12]}", highlight=False)
    for name in ("surfaces", "policies", "experiments", "learners"):
        out.print(f"  {name}: {', '.join(summary[name]) or 'none'}", highlight=False)


def _plain(fault: Fault) -> dict[str, Any]:
    return {
        "file": str(fault.file) if fault.file else None,
        "line": fault.line,
        "field": fault.field,
        "value": fault.value,
        "message": fault.message,
    }


def main() -> None:
    """Run the command line; exit status 0 success, 1 a finding, 2 bad usage or input."""
    app()
