"""``evenhand serve``."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from api.cli.console import err, errors_told, fail
from api.cli.options import Database, WorkspaceFolder
from engine.errors import EngineError


def serve(
    *,
    workspace: WorkspaceFolder,
    database: Database,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 for a free one.")] = 8000,
    learn_every: Annotated[
        float, typer.Option(min=0, help="Seconds between learning runs; 0 never learns.")
    ] = 5.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Yes, whoever reaches the port may ask.")
    ] = False,
) -> None:
    """Serve decisions over HTTP; SIGHUP reloads the workspace."""
    if not _is_loopback(host):
        message = f'`--host` is "{host}"; without keys only a loopback address is served: 127.0.0.1'
        fail(EngineError(message), as_json=False)
    if not no_auth:
        err.print("whoever reaches this port may ask; say --no-auth to mean it", highlight=False)
    with errors_told():
        from api.server import run  # noqa: PLC0415  the other commands need no server

        run(workspace, database, host, port, learn_every or None, log_level)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
