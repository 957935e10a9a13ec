"""The command line ``evenhand``."""

from api.cli.main import main

__all__ = ["main"]
