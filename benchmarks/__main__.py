"""``make bench``: every benchmark or those named, each beside a peer or a floor in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import (
    assignment,
    attribution,
    decision,
    exporting,
    lift,
    policies,
    recsys_accuracy,
    recsys_retrieval,
    recsys_slates,
    replicas,
    serving,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "assignment": assignment.main,
    "attribution": attribution.main,
    "decision": decision.main,
    "exporting": exporting.main,
    "lift": lift.main,
    "policies": policies.main,
    "recsys_accuracy": recsys_accuracy.main,
    "recsys_retrieval": recsys_retrieval.main,
    "recsys_slates": recsys_slates.main,
    "replicas": replicas.main,
    "serving": serving.main,
}


def main() -> None:
    """Run the benchmarks named on the command line, all of them if none is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"{unknown[0]} is no benchmark; known: {', '.join(BENCHMARKS)}")
    for name in names:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()
        print()


if __name__ == "__main__":
    main()
