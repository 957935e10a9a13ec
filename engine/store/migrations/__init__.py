"""Alembic's migrations, applied by a writing process when it opens a database."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from engine.store.backend import Backend

FOLDER = Path(__file__).parent


def upgrade(backend: Backend) -> None:
    """Bring the database to the newest version, in one transaction.

    Raises
    ------
    LookupError
        If the database is of a version that is none of the migrations.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with backend.engine.begin() as connection:
        backend.begin_migration(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise LookupError(str(error)) from error
