"""What fuzzing checks beside Schemathesis' own checks, which loads this module."""

from __future__ import annotations

from typing import Any

import schemathesis

BEYOND_SCHEMAS = (
    # The workspace says so, which the document does not know.
    "is not declared",
    "no surface declares",
    "is declared to lie in",
    "is no slot of it",
    "is missing; give one of",
    # The log or the clock says so.
    "is no stored outcome",
    "no window reaches there",
    # JSON Schema has no class for what is printable, and calls 2.0 an integer.
    "holds a control character",
    "give an integer",
    "low < high",
)
REPORTS = ("/v1/lift", "/v1/ope")


@schemathesis.check
def refused_only_for_what_no_schema_says(ctx: Any, response: Any, case: Any) -> None:
    """A request that the document allows is refused for a reason that the document cannot give."""
    generated = case.meta.generation.mode.is_positive if case.meta else False
    if not generated or response.status_code != 400:
        return
    for error in response.json()["errors"]:
        of_context = error["field"].startswith("context.")
        of_report = case.path in REPORTS and error["field"] == ""
        known = any(words in error["message"] for words in BEYOND_SCHEMAS)
        if not known and not of_context and not of_report:
            raise AssertionError(f"the document allows what is refused: {error}")
