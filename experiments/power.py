"""How many units an experiment needs, and what effect it can show, for the interval it will use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from experiments.errors import ExperimentError, Fault

Horizon: TypeAlias = Literal["always", "fixed"]

# As the lift report's: where its always-valid interval is narrowest, in values off the resting
# one of the smaller variant, and what its mixture's scale is there.
TUNED_AT = 1_000.0
_NARROWEST = 8.211968062068253


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants to be compared by one metric, as the lift report will.

    Parameters
    ----------
    sd
        Standard deviation of one unit's value. Of a proportion p it is √(p (1 − p)); with
        covariates it is what they leave.
    share
        The smaller variant's share of the units of both.
    alpha
        One minus the level of the interval.
    horizon
        ``always``: looked at will; the answer is for the last look. ``fixed``: looked at once.
    shows
        Share of units that show something (a purchase), of which the always-valid interval counts.
    tuned_at
        As in the lift report.

    Raises
    ------
    ExperimentError
        With every value that is out of bounds.
    """

    sd: float
    share: float = 0.5
    alpha: float = 0.05
    horizon: Horizon = "always"
    shows: float = 1.0
    tuned_at: float = TUNED_AT

    def __post_init__(self) -> None:
        faults = [
            Fault(name, value, repair)
            for name, value, sound, repair in (
                ("sd", self.sd, 0 < self.sd < math.inf, "give a number above 0"),
                ("share", self.share, 0 < self.share <= 0.5, "give the smaller one's, in (0, 0.5]"),
                ("alpha", self.alpha, 0 < self.alpha < 1, "give a number in (0, 1)"),
                ("shows", self.shows, 0 < self.shows <= 1, "give a share in (0, 1]"),
                ("tuned_at", self.tuned_at, 0 < self.tuned_at < math.inf, "give a number above 0"),
                (
                    "horizon",
                    self.horizon,
                    self.horizon in {"always", "fixed"},
                    "say always or fixed",
                ),
            )
            if not sound
        ]
        if faults:
            raise ExperimentError(tuple(faults))

    def standard_error(self, units: float) -> float:
        """Of the difference, with so many units in both variants together."""
        return self.sd / math.sqrt(units * self.share * (1 - self.share))

    def half_width(self, units: float) -> float:
        """Half the interval's width at so many units, in the metric's unit."""
        return self._widening(units) * self.standard_error(units)

    def power(self, effect: float, units: float) -> float:
        """Probability that the interval excludes zero on the effect's side, at the last look.

        An experiment that is watched may show the effect earlier, so that this is a lower bound
        for an always-valid interval.
        """
        return float(ndtr(abs(effect) / self.standard_error(units) - self._widening(units)))

    def minimum_effect(self, units: float, power: float = 0.8) -> float:
        """The least effect that is shown with this power, in the metric's unit."""
        _check("power", power, sound=0 < power < 1, repair="give a number in (0, 1)")
        _check("units", units, sound=2 < units < math.inf, repair="give a number above 2")
        return (self._widening(units) + float(ndtri(power))) * self.standard_error(units)

    def units(self, effect: float, power: float = 0.8) -> int:
        """Units of both variants together that show an effect with this power.

        Never fewer than let the always-valid interval end its burn-in of 100 values that show
        something in the smaller variant.
        """
        _check("effect", effect, sound=0 < abs(effect) < math.inf, repair="give a number not 0")
        _check("power", power, sound=0 < power < 1, repair="give a number in (0, 1)")
        least = 100 / (self.shows * self.share) if self.horizon == "always" else 4.0

        def lacking(log_units: float) -> float:
            return self.minimum_effect(math.exp(log_units), power) - abs(effect)

        low, high = math.log(least), math.log(1e18)
        if lacking(low) <= 0:
            return math.ceil(least)
        if lacking(high) > 0:
            raise ExperimentError(
                (Fault("effect", effect, "is too small for any number of units: expect more"),)
            )
        return math.ceil(math.exp(brentq(lacking, low, high, xtol=1e-12)))

    def _widening(self, units: float) -> float:
        """Half the interval's width, in standard errors; `attribution.anytime` has its source."""
        if self.horizon == "fixed":
            return float(ndtri(1 - self.alpha / 2))
        c = units * self.share * self.shows * _NARROWEST / self.tuned_at
        return math.sqrt(2 * (c + 1) / c * (0.5 * math.log1p(c) - math.log(self.alpha)))


def _check(name: str, value: float, *, sound: bool, repair: str) -> None:
    if not sound:
        raise ExperimentError((Fault(name, value, repair),))
