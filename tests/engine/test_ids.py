"""Ids: what they are made of, and that no two are alike."""

from __future__ import annotations

from uuid import UUID

import pytest

from engine.ids import RandomIds, uuid7

NOW = 1_750_000_000_123_456


@pytest.mark.parametrize("bits", [0, 1, 2**62 - 1, 2**64 - 1])
def test_an_id_is_a_uuid_of_version_7_with_the_time_and_the_bits(bits: int) -> None:
    id_ = uuid7(NOW, bits)
    read = UUID(id_)
    assert str(read) == id_
    assert (read.version, read.variant) == (7, "specified in RFC 4122")
    assert read.int >> 80 == NOW // 1_000
    assert read.int & (1 << 62) - 1 == bits & (1 << 62) - 1


def test_random_ids_differ_within_a_microsecond_and_sort_by_time() -> None:
    new_id = RandomIds()
    # More than are made of one reading of the operating system's randomness.
    together = [new_id(NOW) for _ in range(2_000)]
    assert len(set(together)) == len(together)
    apart = [new_id(NOW + step) for step in range(2_000)]
    assert sorted(apart) == apart
