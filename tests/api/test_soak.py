"""A server's memory stays small and flat: the short form of ``make soak``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.soak.load import Sample, Soaked, soak
from tests.soak.verdict import findings, growth

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason=f"{sys.platform} tells no resident memory here"
)

ROUNDS = 1_000


def test_memory_stays_small_and_flat_under_load(tmp_path: Path) -> None:
    """A leak of a record a decision, some kilobytes, is far beyond the bound."""
    soaked = soak(tmp_path, rounds=ROUNDS, every_s=0.25)
    assert soaked.samples[-1].requests == 3 * ROUNDS
    assert soaked.reloads > 0
    assert findings(soaked, free_bytes=1e6, most_bytes_per_request=300) == []


def of(*megabytes: float) -> Soaked:
    samples = [
        Sample(i, 1_000 * i, round(1e6 * size), 10_000_000) for i, size in enumerate(megabytes)
    ]
    return Soaked(samples, learned=1)


def verdict(soaked: Soaked) -> list[str]:
    return findings(soaked, free_bytes=1e6, most_bytes_per_request=100)


def test_growth_is_found_and_a_peak_or_a_warm_up_is_none() -> None:
    flat = [100.0] * 20
    assert verdict(of(*flat)) == []
    assert verdict(of(*[50.0, 60.0, 90.0], *flat)) == []
    assert verdict(of(*flat[:10], 200.0, *flat[:10])) == []
    growing = of(*(100 + 0.5 * i for i in range(20)))
    assert growth(growing.samples).bytes_per_request == pytest.approx(500)
    (said,) = verdict(growing)
    assert "500 bytes each" in said


def test_too_much_memory_and_idle_learning_are_found() -> None:
    assert len(verdict(of(*[251.0] * 20))) == 1
    assert verdict(Soaked(of(*[100.0] * 20).samples)) == ["nothing was learned"]
