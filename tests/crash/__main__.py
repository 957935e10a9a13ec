"""``python -m tests.crash``: exit status 0 if nothing was lost or doubled, 1 if something was."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.crash.rounds import crash
from tests.postgres import any_server


def main() -> int:
    """Run as many rounds as asked for and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the load and the moments of kills")
    parser.add_argument("--database", help="an address of a new database (default: a SQLite file)")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server")
    parser.add_argument("--replicas", type=int, default=1, help="servers on one database")
    given = parser.parse_args()
    if given.replicas > 1 and not (given.postgres or given.database):
        parser.error("several replicas need --postgres, or a --database that they can share")
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        database = given.database or f"sqlite:///{folder}/log.db"
        if given.postgres:
            database = stack.enter_context(any_server()).create()
        verdict = crash(Path(folder), database, given.rounds, given.seed, _progress, given.replicas)
    told = verdict.told
    kills = ", ".join(f"{n} × {kind}" for kind, n in verdict.kills.items())
    print(f"\nkilled: {kills}")
    print(
        f"acknowledged: {len(told.answers):,} decisions "
        f"(answered {sum(map(len, told.answers.values())):,} times), "
        f"{len(told.exposures):,} exposures, {len(told.outcomes):,} outcomes"
    )
    for finding in verdict.findings:
        print(f"✗ {finding}")
    if not verdict.findings:
        print("✓ nothing lost, doubled or learned twice")
    return 1 if verdict.findings else 0


def _progress(line: str) -> None:
    end = "" if sys.stdout.isatty() else "\n"
    print(f"\r{line}  " if not end else line, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
