"""Whether memory is small and flat, from samples of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.load import Sample, Soaked

MOST_BYTES = 250_000_000
WARM_UP = 0.2
"""The share of the samples in which caches, pools and models may still fill."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a process's resident memory grew once it was warm, over how many requests.

    Between the median of the first third of the samples and that of the last, so that neither a
    peak nor one allocation of the allocator's counts as growth.
    """

    grown_bytes: float
    requests: float

    @property
    def bytes_per_request(self) -> float:
        """Of the growth; negative where memory was given back."""
        return self.grown_bytes / max(self.requests, 1)


def growth(samples: Sequence[Sample]) -> Growth:
    """Of the server, over at least six samples."""
    warm = samples[round(WARM_UP * len(samples)) :]
    third = len(warm) // 3
    first, last = warm[:third], warm[-third:]
    return Growth(
        statistics.median(s.server_bytes for s in last)
        - statistics.median(s.server_bytes for s in first),
        statistics.median(s.requests for s in last) - statistics.median(s.requests for s in first),
    )


def findings(soaked: Soaked, *, free_bytes: float, most_bytes_per_request: float) -> list[str]:
    """What is amiss: faults of requests, nothing learned, too much memory, or growth.

    Growth may be ``free_bytes``, what allocators and caches move by, and so much a request.
    """
    found = list(soaked.faults)
    if not soaked.learned:
        found.append("nothing was learned")
    peak = max(max(s.server_bytes, s.learner_bytes) for s in soaked.samples)
    if peak > MOST_BYTES:
        found.append(f"{peak / 1e6:.0f} MB resident, more than {MOST_BYTES / 1e6:.0f} MB")
    grown = growth(soaked.samples)
    if grown.grown_bytes > free_bytes + most_bytes_per_request * grown.requests:
        found.append(
            f"the server grew by {grown.grown_bytes / 1e6:.1f} MB over {grown.requests:,.0f} "
            f"requests: {grown.bytes_per_request:,.0f} bytes each"
        )
    return found
