"""The seconds that stages take, by a timer that the edge gives: nothing below it reads a clock."""

from __future__ import annotations

from collections.abc import Callable

Timer = Callable[[], float]


class Watch:
    """Adds up the seconds of stages; without a timer it does nothing."""

    def __init__(self, timer: Timer | None) -> None:
        self._timer = timer
        self._stage = ""
        self._since = 0.0
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """Begin a stage; the one before has ended. The empty name begins none."""
        if self._timer is None:
            return
        now = self._timer()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = name, now
