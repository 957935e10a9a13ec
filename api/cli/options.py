"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATABASE = "sqlite:///evenhand.db"

Database = Annotated[
    str,
    typer.Option(
        envvar="EVENHAND_DATABASE",
        help="Address of the database, as sqlite:///evenhand.db or postgresql://….",
    ),
]
OptionalDatabase = Annotated[
    str | None,
    typer.Option(
        "--database", envvar="EVENHAND_DATABASE", help="Address of the database that is read."
    ),
]
Log = Annotated[Path | None, typer.Option(help="Folder of an export, in place of a database.")]
WorkspaceFolder = Annotated[
    Path, typer.Option(envvar="EVENHAND_WORKSPACE", help="Folder of the workspace's YAML files.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Units = Annotated[str | None, typer.Option(help="Salted share of the units, as 0.5:1.")]
