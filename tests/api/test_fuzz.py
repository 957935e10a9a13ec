"""Whatever the OpenAPI document allows or forbids is answered as it says, and never with a 5xx."""

from __future__ import annotations

from pathlib import Path

from engine.keys import Scope
from tests.api.running import counts
from tests.fuzz.campaign import REPORTS, SWIFT, Campaign


def test_every_answer_is_as_documented(tmp_path: Path) -> None:
    """A short run of ``make fuzz``, with a key, without, with too little."""
    campaign = Campaign(tmp_path)
    admin, outcomes = campaign.key(Scope.ADMIN), campaign.key(Scope.OUTCOMES)
    seeded = ("--seed=1", "--no-shrink")
    with campaign.server:
        found = campaign.run(admin, *SWIFT, "--max-examples=20", *seeded)
        found += campaign.run(outcomes, *SWIFT, "--phases=fuzzing", "--max-examples=3", *seeded)
        found += campaign.run(admin, *REPORTS, "--phases=fuzzing", "--max-examples=3", *seeded)
    assert not found, "\n".join(found)
    # Not all of it was refused.
    stored = counts(campaign.database)
    assert min(stored["decisions"], stored["outcomes"], stored["exposures"]) > 0
