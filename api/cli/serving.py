"""``evenhand serve``."""

from __future__ import annotations

import ipaddress
from math import isinf
from typing import Annotated

import typer

from api.cli.console import errors_told, fail
from api.cli.options import Database, WorkspaceFolder
from engine.errors import EngineError


def serve(
    *,
    workspace: WorkspaceFolder,
    database: Database,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 for a free one.")] = 8000,
    learn_every: Annotated[
        float, typer.Option(min=0, help="Seconds between learning runs; 0 never learns.")
    ] = 5.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no key; on loopback only.")
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests per second of each key; 0 for no limit.")
    ] = 0.0,
) -> None:
    """Serve decisions over HTTP; SIGHUP reloads the workspace."""
    if no_auth and not _is_loopback(host):
        message = f'`--host` is "{host}"; without keys only a loopback address is served: 127.0.0.1'
        fail(EngineError(message), as_json=False)
    if no_auth and rate:
        message = f"`--rate` is {rate:g}, a limit of each key; with `--no-auth` there are none"
        fail(EngineError(message), as_json=False)
    if isinf(rate):
        fail(
            EngineError(f"`--rate` is {rate}; give requests per second, 0 for no limit"),
            as_json=False,
        )
    with errors_told():
        from api.app import Settings  # noqa: PLC0415  the other commands need no server
        from api.server import run  # noqa: PLC0415

        settings = Settings(
            workspace, database, learn_every or None, auth=not no_auth, rate=rate or None
        )
        run(settings, host, port, log_level)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
