"""What fuzzing checks beside Schemathesis' own checks, and how it meets the present.

Schemathesis loads this module.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis

from engine.errors import RequestError
from engine.ids import rfc3339, system_clock
from engine.request import LONGEST_ID, parse_time

BEYOND_SCHEMAS = (
    # The workspace says so, which the document does not know.
    "is not declared",
    "no surface declares",
    "is declared to lie in",
    "is no slot of it",
    "is missing; give one of",
    "name one",
    "is no attribute of items",
    "the workspace says",
    "filters.",
    "give a time as RFC 3339",
    # Of an item that is removed, or corrects another's outcome, nothing else can be said.
    "stands beside news",
    "is that of the outcome",
    # The log or the clock says so.
    "is no stored outcome",
    "no window reaches there",
    # JSON Schema has no class for what is printable, and calls 2.0 an integer.
    "holds a control character",
    "give an integer",
    "low < high",
)
LONGEST_METRIC = 64
IDS = (
    *("user_id", "anonymous_id", "request_id", "decision_id"),
    *("outcome_id", "corrects", "item_id"),
)
REPORTS = ("/v1/lift", "/v1/ope")


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    """Half of what is valid becomes what is taken: known metrics, the present, printable ids.

    Nearly nothing else is stored, and dictionaries do not reach into a body of two forms.
    """
    for part in body if isinstance(body, list) else [body]:
        if not isinstance(part, dict):
            continue
        for name in IDS:
            given = part.get(name)
            if isinstance(given, str) and 0 < len(given) <= LONGEST_ID and len(given) % 2 == 0:
                part[name] = "".join(filter(str.isprintable, given)) or "x"
        attributes = part.get("attributes")
        if isinstance(attributes, dict) and len(attributes) % 2:
            part["attributes"] = {"price": len(attributes)}
        metric, moment = part.get("metric"), part.get("occurred_at")
        if (
            isinstance(metric, str)
            and 0 < len(metric) <= LONGEST_METRIC
            and (len(metric) + ord(metric[0])) % 2
        ):
            part["metric"] = "watch"
        if isinstance(moment, str) and len(moment) % 2 == 0:
            with suppress(RequestError):
                parse_time("occurred_at", moment)
                part["occurred_at"] = rfc3339(system_clock())
    return body


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
