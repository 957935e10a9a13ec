"""Running the application under uvicorn."""

from __future__ import annotations

from pathlib import Path

import uvicorn

from api.app import Settings, create_app
from api.telemetry import start_logging


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
        If the workspace has faults or the database cannot be written.
    """
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
