"""Small designs for tests, and random ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import strategies as st

from experiments import Design, Experiment, Holdout, Pin, State, Variant

UNITS = tuple(f"u:{i}" for i in range(400))


def variants(weights: tuple[float, ...] = (1, 1), slot: str = "home.layout") -> tuple[Variant, ...]:
    """Variants v0, v1, … that pin an action each to ``slot``."""
    return tuple(Variant(f"v{i}", w, {slot: Pin(f"a{i}")}) for i, w in enumerate(weights))


def experiment(
    id_: str = "exp",
    *,
    layer: str = "homepage",
    range_: tuple[float, float] = (0, 1),
    ramp: float = 1,
    weights: tuple[float, ...] = (1, 1),
    slot: str = "home.layout",
    state: State = "running",
) -> Experiment:
    """A running experiment on everybody, of two variants, unless said otherwise."""
    return Experiment(id_, layer, range_, ramp, variants(weights, slot), state)


@st.composite
def designs(draw: st.DrawFn) -> Design:
    """Up to two holdouts and three layers of up to three experiments, each layer with a slot."""
    shares = draw(st.lists(st.sampled_from([0, 0.05, 0.3]), max_size=2))
    surfaces = st.sampled_from([None, frozenset({"home"}), frozenset({"search"})])
    holdouts = tuple(Holdout(f"h{i}", share, draw(surfaces)) for i, share in enumerate(shares))
    experiments = []
    for layer in range(draw(st.integers(1, 3))):
        cuts = draw(st.lists(st.integers(0, 20), min_size=2, max_size=4, unique=True).map(sorted))
        for low, high in pairwise(cuts):
            experiments.append(
                experiment(
                    f"e{layer}_{low}",
                    layer=f"l{layer}",
                    range_=(low / 20, high / 20),
                    ramp=draw(st.sampled_from([0, 0.1, 0.5, 1])),
                    weights=tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))),
                    slot=f"{draw(st.sampled_from(['home', 'search']))}.slot{layer}",
                    state=draw(st.sampled_from(["running", "running", "draft", "paused", "ended"])),
                )
            )
    return Design(holdouts, tuple(experiments))


def with_change(design: Design, index: int, **changes: object) -> Design:
    """``design`` with fields of its experiment ``index`` replaced."""
    changed = list(design.experiments)
    changed[index] = replace(changed[index], **changes)  # type: ignore[arg-type]  # any field
    return replace(design, experiments=tuple(changed))
