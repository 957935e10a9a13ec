"""Running the application under uvicorn."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn

from api.app import Settings, create_app
from api.telemetry import start_logging
from engine.errors import EngineError


def run(
    workspace: Path,
    database: str,
    host: str,
    port: int,
    learn_every_s: float | None,
    log_level: str,
) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    EngineError
        If the workspace has faults, the database cannot be written, or the port is taken.
    """
    _check_free(host, port)
    journal = start_logging(log_level)
    app = create_app(Settings(workspace, database, learn_every_s), journal)
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )


def _check_free(host: str, port: int) -> None:
    """Raises EngineError if the port cannot be listened on; uvicorn would end with status 1."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise EngineError(
            f"`--port` is {port}, which cannot be listened on: {error.strerror}; "
            "give another, or 0 for a free one"
        ) from error
