"""``python -m tests.crash``: exit status 0 if nothing was lost or doubled, 1 if something was."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.crash.rounds import crash


def main() -> int:
    """Run as many rounds as asked for and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the load and the moments of kills")
    parser.add_argument("--database", help="an address of a new database (default: a SQLite file)")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        database = given.database or f"sqlite:///{folder}/log.db"
        verdict = crash(Path(folder), database, given.rounds, given.seed, _progress)
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
