"""Running the application under uvicorn."""

from __future__ import annotations

import gc
import socket

import uvicorn

from api.app import Settings, create_app
from api.protocol import LimitedProtocol
from api.telemetry import start_logging
from engine.errors import EngineError

_COLLECT_AFTER = 20_000
"""How many more objects that could be cyclic must live than at the last collection."""


def run(
    settings: Settings,
    host: str,
    port: int,
    log_level: str,
) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    EngineError
        If the workspace has faults, the database cannot be written, the keys cannot be read, or the
        port is taken.
    """
    _check_free(host, port)
    journal = start_logging(log_level)
    app = create_app(settings, journal)
    # What is loaded by now stays, and of what a request makes next to nothing is cyclic: collecting
    # as often as Python does by itself takes a twentieth of a decision, and walking all that is
    # loaded tens of milliseconds, now and then.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here asks for the client's address or scheme.
        proxy_headers=False,
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
