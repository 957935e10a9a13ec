"""What the server says of itself: Prometheus metrics and structured logs, without personal data."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.answer import Answer
from engine.log import Stored
from engine.service import Status

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_MOST_LABELLED = 4_096


def start_logging(level: str) -> structlog.stdlib.BoundLogger:
    """Log one JSON object a line to standard error, of this and every library."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=level.upper(), force=True)
    # Its news is how it was set up, at every start.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=shared,
    )
    logging.getLogger().handlers[0].setFormatter(renderer)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    journal: structlog.stdlib.BoundLogger = structlog.get_logger("evenhand")
    return journal


class Telemetry:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "evenhand_request_seconds",
            "Time to answer a request.",
            ("route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.choices = Counter(
            "evenhand_choices_total",
            "Choices answered, by slot, action and reason.",
            ("surface", "slot", "action", "reason"),
            registry=self.registry,
        )
        self.unlogged = Counter(
            "evenhand_unlogged_decisions_total",
            "Requests answered with the declared defaults because nothing could be logged.",
            ("surface",),
            registry=self.registry,
        )
        self.outcomes = Counter(
            "evenhand_outcomes_total",
            "Outcomes received, by what became of them.",
            ("result",),
            registry=self.registry,
        )
        self.batch = Histogram(
            "evenhand_commit_entries",
            "Entries made durable by one commit.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )
        self.commit = Histogram(
            "evenhand_commit_seconds",
            "Time that one commit took.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        # Finding a metric by its labels takes the library longer than counting does.
        self._request = lru_cache(_MOST_LABELLED)(self.requests.labels)
        self._choice = lru_cache(_MOST_LABELLED)(self.choices.labels)
        self._accepted = self.outcomes.labels("accepted")
        self._duplicate = self.outcomes.labels("duplicate")
        self._unmatched = self.outcomes.labels("unmatched")
        self._waiting = Gauge(
            "evenhand_waiting_entries",
            "Entries that wait for a commit.",
            registry=self.registry,
        )
        self._healthy = Gauge(
            "evenhand_healthy",
            "1 where a part works, 0 where its last attempt failed.",
            ("part",),
            registry=self.registry,
        )

    def requested(self, route: str, status: int, seconds: float) -> None:
        """Note one request."""
        self._request(route, status).observe(seconds)

    def committed(self, entries: int, seconds: float) -> None:
        """Note one commit."""
        self.batch.observe(entries)
        self.commit.observe(seconds)

    def answered(self, answer: Answer) -> None:
        """Note one decision."""
        if not answer.logged and answer.fallback:
            self.unlogged.labels(answer.surface).inc()
        for choice in answer.choices:
            self._choice(answer.surface, choice.slot, choice.action, choice.reason).inc()

    def received(self, stored: Stored) -> None:
        """Note outcomes that were sent together."""
        self._accepted.inc(stored.accepted)
        self._duplicate.inc(stored.duplicates)
        self._unmatched.inc(stored.unmatched)

    def exposition(self, status: Status) -> bytes:
        """All metrics in Prometheus' text format."""
        self._waiting.set(status.waiting)
        self._healthy.labels("storing").set(status.storing)
        self._healthy.labels("reloading").set(status.reload_fault is None)
        self._healthy.labels("learning").set(status.learning_fault is None)
        return generate_latest(self.registry)
