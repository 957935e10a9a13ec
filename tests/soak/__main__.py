"""``python -m tests.soak``: exit status 0 if memory stayed small and flat, 1 if it did not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.load import Sample, soak
from tests.soak.verdict import findings, growth

FREE_BYTES = 4e6
MOST_BYTES_PER_REQUEST = 30.0


def main() -> int:
    """Soak for as long as asked for and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=50, help="rounds of three requests a second")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        soaked = soak(
            Path(folder), seconds=60 * given.minutes, rate=given.rate, every_s=2, progress=_progress
        )
    found = findings(soaked, free_bytes=FREE_BYTES, most_bytes_per_request=MOST_BYTES_PER_REQUEST)
    grown = growth(soaked.samples)
    print(
        f"\nserver at most {max(s.server_bytes for s in soaked.samples) / 1e6:.0f} MB, "
        f"learner {max(s.learner_bytes for s in soaked.samples) / 1e6:.0f} MB; "
        f"{soaked.samples[-1].requests:,} requests, {soaked.learned:,} snapshots, "
        f"{soaked.reloads} reloads; grown by {grown.grown_bytes / 1e6:.2f} MB over "
        f"{grown.requests:,.0f} requests once warm"
    )
    for finding in found:
        print(f"✗ {finding}")
    if not found:
        print("✓ small and flat")
    return 1 if found else 0


def _progress(sample: Sample) -> None:
    line = (
        f"{sample.seconds / 60:5.1f} min  {sample.requests:9,} requests  server "
        f"{sample.server_bytes / 1e6:5.1f} MB  learner {sample.learner_bytes / 1e6:5.1f} MB"
    )
    if sys.stdout.isatty():
        print(f"\r{line}", end="", flush=True)
    elif int(sample.seconds) % 30 < 2:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
