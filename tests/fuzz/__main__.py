"""``python -m tests.fuzz``: exit status 0 if every answer was as documented, 1 if one was not."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.keys import Scope
from tests.fuzz.campaign import REPORTS, SWIFT, Campaign

SHARE_OF_REPORTS = 0.2


def main() -> int:
    """Fuzz for as long as asked for, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of what is asked (default: another each time)")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    seconds = max(60 * given.minutes, 10)
    with TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), loud=True)
        secret, lesser = campaign.key(Scope.ADMIN), campaign.key(Scope.OUTCOMES)
        found = []
        with campaign.server:
            for key, which, share in (
                (secret, SWIFT, 0.9 - SHARE_OF_REPORTS),
                (lesser, SWIFT, 0.1),
                (secret, REPORTS, SHARE_OF_REPORTS),
            ):
                longest = f"--max-time={max(1, round(share * seconds))}"
                found += campaign.run(key, *which, longest, f"--seed={seed}")
    for finding in found:
        print(f"✗ {finding}")
    print(f"seed {seed}: " + ("found faults" if found else "every answer was as documented"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
