"""Several randomisations at once: what learning was worth, and what each surface was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from os import PathLike
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.anytime import NormalMixture
from attribution.contrasts import LEAST_AWAY
from attribution.effects import TUNED_AT, lift
from attribution.errors import AttributionError, refuse_rows
from attribution.lift_metrics import Mean
from attribution.log import as_pandas, column, numbers
from attribution.report import LiftReport, SampleRatio
from attribution.rollups import roll_up
from attribution.sample_ratio import sample_ratio
from attribution.variant_means import VariantMeans, from_moments
from attribution.wording import GROUPS, moved

FloatArray = npt.NDArray[np.float64]

_CONTRASTS: Final = {
    "learning": ("learned", "random"),
    "acting": ("random", "none"),
    "business as usual": ("usual", "none"),
    "learning over usual": ("learned", "usual"),
    "all": ("learned", "none"),
}


def value_of_learning(
    units: Any, *, variant: str, groups: Mapping[str, str], **asked: Any
) -> dict[str, LiftReport]:
    """What learning was worth apart from acting at all: a lift report for each pair of groups.

    ``learning`` is learned against random, ``acting`` random against none, ``business as usual``
    usual against none, ``learning over usual`` learned against usual, ``all`` learned against none.
    Without the random group what looks like learning may be what any message does.

    Parameters
    ----------
    units, asked
        As for `lift`, whose ``baseline`` the pairs give.
    groups
        The variant that is each group: ``learned``, ``random``, ``usual``, ``none``. Pairs of which
        one is absent are left out.

    Raises
    ------
    AttributionError
        As by `lift`, or if a group is not one of the four or no pair is there.
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise AttributionError(f"`groups` has {', '.join(unknown)}. Known: {', '.join(GROUPS)}.")
    pairs = {name: pair for name, pair in _CONTRASTS.items() if set(pair) <= set(groups)}
    if not pairs:
        raise AttributionError(
            "`groups` holds no two that are compared: name learned and random at least."
        )
    table = pd.read_parquet(units) if isinstance(units, str | PathLike) else as_pandas(units)
    assigned = column(table, variant, "variant").astype("string")
    return {
        name: lift(
            table[assigned.isin([groups[first], groups[second]]).to_numpy(dtype=bool)],
            variant=variant,
            baseline=groups[second],
            **asked,
        )
        for name, (first, second) in pairs.items()
    }


@dataclass(frozen=True, slots=True)
class Surface:
    """A surface's own randomisation: its columns of what each unit got, and how likely that was.

    ``acted`` holds truths (the surface acted, or held back); ``probability`` the chance of the one
    that happened.
    """

    acted: str
    probability: str


@dataclass(frozen=True, slots=True)
class SurfaceEffect:
    """An effect on the shared outcome, a unit; ``kind`` is total, surface or interaction."""

    kind: str
    name: str
    difference: float
    low: float
    high: float
    p_value: float
    interval: str
    verdict: str


@dataclass(frozen=True, slots=True)
class SurfaceReport:
    """What several surfaces did to one outcome.

    ``last_touch`` is what counting by the last surface touched would credit, outcome a unit, for
    contrast: it credits what would have happened anyway.
    """

    srm: SampleRatio
    effects: tuple[SurfaceEffect, ...]
    last_touch: Mapping[str, float]

    def table(self) -> pd.DataFrame:
        """One row for each effect; the columns are the fields of `SurfaceEffect`."""
        names = list(SurfaceEffect.__slots__)
        return pd.DataFrame([[getattr(e, n) for n in names] for e in self.effects], columns=names)


def across_surfaces(
    units: Any,
    *,
    surfaces: Mapping[str, Surface],
    outcome: str,
    last_touch: str | None = None,
    alpha: float = 0.05,
    tuned_at: float = TUNED_AT,
) -> SurfaceReport:
    """Total effect of all surfaces on a shared outcome, each one's own, and how two interact.

    Surfaces are randomised independently of each other. With m(c) the Hájek mean of the units of
    cell c, which surfaces acted, the **total** is m(all) − m(none); a **surface's** effect is the
    mean over the others' cells of acting less holding back; an **interaction** of two is that
    of the first where the second acts, less that where it does not. Intervals are always-valid,
    as those of `lift`.

    Parameters
    ----------
    units
        A frame or path, one row a unit.
    surfaces
        By name, each surface's randomisation.
    outcome
        The column of the outcome, one value a unit.
    last_touch
        A column of the last surface that each unit touched; missing where there was none.

    Raises
    ------
    AttributionError
        If a column or value is not valid, or a cell of surfaces has fewer than two units.
    """
    if len(surfaces) < 2:
        raise AttributionError("`surfaces` has fewer than two. Ask `lift` of one.")
    table = as_pandas(units)
    names = list(surfaces)
    label = np.full(len(table), "", dtype=object)
    chance = np.ones(len(table))
    for name, surface in surfaces.items():
        acted = column(table, surface.acted, f"surfaces.{name}.acted")
        refuse_rows(
            ~acted.isin([0, 1]).to_numpy(),
            surface.acted,
            "is neither true nor false",
            "Log for every unit whether the surface acted or held back.",
            acted.to_numpy(),
        )
        label = label + acted.astype(int).astype(str).to_numpy(dtype=object)
        chance = chance * numbers(table, surface.probability, "probability")
    frame = pd.DataFrame({"cell": label, "p": chance, outcome: numbers(table, outcome, "outcome")})
    metric = Mean(outcome)
    rollup = roll_up(frame, variant="cell", metrics=[metric], probability="p")
    cells = ["".join(each) for each in product("01", repeat=len(names))]
    present = rollup.keys["variant"]
    place = {cell: number for number, cell in enumerate(cells)}
    variant = np.array([place[cell] for cell in present], dtype=np.intp)
    moments = rollup.moments[outcome]
    held = np.bincount(variant, moments.n, len(cells))
    if (held < 2).any():
        lacking = cells[int(np.argmin(held))]
        acts = ", ".join(name for name, bit in zip(names, lacking, strict=True) if bit == "1")
        raise AttributionError(
            f"`surfaces` has {held.min():.0f} units with an outcome where {acts or 'none'} acted. "
            "At least two are needed in every combination.",
            count=int(held.min()),
        )
    shares = rollup.keys["probability"].to_numpy(np.float64)
    srm = sample_ratio(rollup.assigned, shares, variant, len(cells))
    means = from_moments(metric, moments, variant, shares, np.zeros(len(variant), np.intp))
    mixture = NormalMixture(tuned_at)
    effects = [
        SurfaceEffect(kind, name, *_judged(weights, means, srm, mixture, alpha))
        for kind, name, weights in _effects(names, cells)
    ]
    return SurfaceReport(srm, tuple(effects), _last_touch(table, names, outcome, last_touch))


def _judged(
    weights: FloatArray,
    means: VariantMeans,
    srm: SampleRatio,
    mixture: NormalMixture,
    alpha: float,
) -> tuple[float, float, float, float, str, str]:
    """Difference, its ends, p-value, interval and verdict of a weighted sum of cells' means."""
    nan = math.nan
    if srm.verdict == "failed":
        why = f"no interval: sample ratio failed (p = {srm.p_value:.2g})"
        return nan, nan, nan, nan, "none", why
    difference = float(weights @ means.value)
    clock = float(means.away[weights != 0].min())
    if clock < LEAST_AWAY["always"]:
        why = f"no interval: a combination has only {clock:.0f} values other than 0"
        return difference, nan, nan, nan, "none", why
    # No spread below the pooled one, as in `contrasts`.
    pooled = float(means.effective @ (means.own * means.effective) / means.effective.sum())
    variance = np.maximum(means.own, pooled / means.effective)
    se = math.sqrt(float(weights**2 @ variance))
    half = mixture.widening(clock, alpha) * se
    p_value = mixture.p_value((difference / se) ** 2, clock)
    verdict = moved(difference, p_value, alpha)
    return difference, difference - half, difference + half, p_value, "sequence", verdict


def _effects(names: list[str], cells: list[str]) -> list[tuple[str, str, FloatArray]]:
    """Every effect as weights of the cells' means."""
    acts = np.array([[bit == "1" for bit in cell] for cell in cells])
    signs = np.where(acts, 1.0, -1.0)
    found = [("total", "all", np.where(acts.all(axis=1), 1.0, 0.0) - ~acts.any(axis=1))]
    rest = len(cells) / 2
    for number, name in enumerate(names):
        found.append(("surface", name, signs[:, number] / rest))
    for second in range(len(names)):
        for first in range(second):
            pair = signs[:, first] * signs[:, second] / (rest / 2)
            found.append(("interaction", f"{names[first]} × {names[second]}", pair))
    return found


def _last_touch(
    table: pd.DataFrame, names: list[str], outcome: str, last_touch: str | None
) -> dict[str, float]:
    if last_touch is None:
        return {}
    touched = column(table, last_touch, "last_touch")
    values = np.nan_to_num(numbers(table, outcome, "outcome"))
    return {name: float(values[(touched == name).to_numpy()].sum() / len(table)) for name in names}
