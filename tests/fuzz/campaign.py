"""A server with keys on a new log, and Schemathesis asking it by its own OpenAPI document."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.ids import random_uuid7, system_clock
from engine.keys import Scope, new_key
from engine.store import KeyStore
from tests.api.running import Server, environment
from tests.api.workspaces import write_slates, write_workspace

# Names that the workspace declares, so that enough of what is asked is answered, and learned from.
_CONFIGURATION = """
hooks = "tests.fuzz.checks"
headers = { Authorization = "Bearer ${EVENHAND_KEY}" }

[checks.positive_data_acceptance]
# Which refusals (400) may be is the check of ours.
expected-statuses = ["2xx", 400, 401, 403, 404, 409]

[dictionaries]
surfaces = { values = ["home", "nudge", "triggered", "shelf"] }
triggers = { values = ["session_start", "open"] }
experiments = { values = ["layout_test"] }
slots = { values = ["layout", "hero"] }

[parameters]
"body.surface" = { dictionary = "surfaces", probability = 0.8 }
"body.trigger" = { dictionary = "triggers", probability = 0.3 }
"query.experiment" = { dictionary = "experiments", probability = 0.7 }
"query.surface" = { dictionary = "surfaces", probability = 0.8 }
"query.slot" = { dictionary = "slots", probability = 0.8 }
"""
# A report is made by a process of its own, which takes as long as a hundred other requests.
SWIFT = ("--exclude-path-regex=^/v1/(lift|ope)$",)
REPORTS = ("--include-path-regex=^/v1/(lift|ope)$", "--phases=coverage,fuzzing")


class Campaign:
    """Runs of Schemathesis against one server, which learns meanwhile."""

    def __init__(self, folder: Path, *, loud: bool = False) -> None:
        """``loud`` shows the progress of each run as it goes on."""
        self._folder = folder
        self._loud = loud
        self.database = f"sqlite:///{folder}/log.db"
        self.server = Server(
            write_slates(write_workspace(folder / "workspace")),
            self.database,
            folder / "server.log",
            "--learn-every=1",
            keys=True,
        )

    def key(self, *scopes: Scope) -> str:
        """The secret of a new key; made before the server starts, it is known from the start."""
        now_us = system_clock()
        key, secret = new_key("fuzz", scopes, random_uuid7(now_us), now_us)
        KeyStore(self.database).add(key)
        return secret

    def run(self, secret: str, *options: str) -> list[str]:
        """What was found: the output of a run that failed, and what the server journalled."""
        (self._folder / "schemathesis.toml").write_text(_CONFIGURATION, encoding="utf-8")
        status, said = self._schemathesis(secret, options)
        found = [said] if status else []
        return found + [f"journalled: {entry}" for entry in self.server.logged("failed")]

    def _schemathesis(self, secret: str, options: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli",
                f"--config-file={self._folder / 'schemathesis.toml'}", "run",
                f"{self.server.url}/openapi.json", "--checks=all", "--continue-on-failure",
                "--generation-database=none", "--request-timeout=130",
                # How long an answer takes is no matter of the document, and of the machine.
                "--max-response-time=130", *options,
            ],
            stdout=None if self._loud else subprocess.PIPE,
            stderr=None if self._loud else subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            # The tool's own warnings are not ours to mend.
            env={**environment(), "PYTHONWARNINGS": "ignore", "EVENHAND_KEY": secret},
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout or "see above"
