"""Pages and charts: well-formed, self-contained, and saying what the report says."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from attribution import Mean, Proportion, lift
from attribution.pages import ope_page
from attribution.plots import Bar, Interval, Point, band_plot, bar_plot, interval_plot
from attribution.report import LiftReport

SVG = "{http://www.w3.org/2000/svg}"


def shown(value: float) -> str:
    return f"{value:.2f}"


def test_an_interval_plot_has_a_named_row_for_each_estimate() -> None:
    rows = [
        Interval("a <b> & c", 0.5, 0.2, 0.8, "good"),
        Interval("d", -0.5, -0.8, -0.2, "bad"),
        Interval("e", 0.1, -0.4, 0.6),
    ]
    root = ET.fromstring(interval_plot("Effects", rows, shown))
    assert root.get("role") == "img"
    assert root[0].text == "Effects"
    told = [group[0].text for group in root.iter(f"{SVG}g")]
    assert told[0] == "a <b> & c: 0.50 [0.20, 0.80]"
    assert [group[-1].tag for group in root.iter(f"{SVG}g")] == [
        f"{SVG}circle",
        f"{SVG}rect",
        f"{SVG}circle",
    ]


def test_estimates_stand_in_their_order_from_left_to_right() -> None:
    rows = [Interval(str(x), x, x - 1, x + 1, "good") for x in (-2.0, 0.0, 3.0)]
    root = ET.fromstring(interval_plot("", rows, shown))
    places = [float(circle.get("cx", "")) for circle in root.iter(f"{SVG}circle")]
    zero = next(line for line in root.iter(f"{SVG}line") if line.get("class") == "zero")
    assert places == sorted(places)
    assert places[1] == pytest.approx(float(zero.get("x1", "")), abs=0.1)
    assert (places[2] - places[1]) / (places[1] - places[0]) == pytest.approx(1.5, rel=0.01)


def test_without_a_zero_the_axis_begins_where_the_estimates_do() -> None:
    rows = [Interval(str(x), x, x - 0.1, x + 0.1) for x in (5.0, 6.0)]
    with_zero, without = (
        ET.fromstring(interval_plot("", rows, shown, zero=each)) for each in (True, False)
    )
    assert "zero" not in {line.get("class") for line in without.iter(f"{SVG}line")}
    first, second = (
        [float(circle.get("cx", "")) for circle in root.iter(f"{SVG}circle")]
        for root in (with_zero, without)
    )
    assert second[1] - second[0] > 4 * (first[1] - first[0])


def test_one_wide_interval_is_cut_and_does_not_flatten_the_others() -> None:
    rows = [Interval("a", 1, 0.9, 1.1), Interval("b", 1, 0.9, 1.1), Interval("c", 1, -99, 99)]
    root = ET.fromstring(interval_plot("", rows, shown))
    widths = [
        float(line.get("x2", "")) - float(line.get("x1", ""))
        for group in root.iter(f"{SVG}g")
        for line in group.iter(f"{SVG}line")
    ]
    assert widths[0] > 40
    assert len(list(root.iter(f"{SVG}path"))) == 2


def test_a_band_leaves_out_points_without_an_interval() -> None:
    points = [Point(str(n), n, n - 1.0, n + 1.0) for n in range(12)]
    points.append(Point("12", 3.0, math.nan, math.nan))
    root = ET.fromstring(band_plot("Over time", points, shown))
    assert len(list(root.iter(f"{SVG}circle"))) == 12
    assert band_plot("", points[-1:], shown) == ""


def test_bars_are_as_long_as_their_values() -> None:
    root = ET.fromstring(bar_plot("", [Bar("a", 1.0), Bar("b", 4.0), Bar("c", 0.0)], shown))
    widths = [float(rect.get("width", "")) for rect in root.iter(f"{SVG}rect")]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)
    assert widths[2] == 0
    assert bar_plot("", [], shown) == interval_plot("", [], shown) == ""


def report() -> LiftReport:
    rng = np.random.default_rng(1)
    new = rng.random(9_000) < 0.5
    week = rng.integers(1, 5, 9_000)
    frame = pd.DataFrame({"variant": np.where(new, "<new>", "old"), "week": week})
    frame["click"] = rng.random(9_000) < np.where(new, 0.4, 0.3)
    frame["margin"] = rng.normal(10 - 0.5 * new, 1.0)
    frame["fresh"] = rng.normal(size=9_000) + new * (1.5 - 0.4 * week)
    frame["device"] = rng.choice(["phone", "tv"], 9_000)
    frame["probability"] = 0.5
    return lift(
        frame,
        variant="variant",
        baseline="old",
        metrics=[
            Proportion("click", better="up"),
            Mean("margin", better="up", margin=0.1),
            Mean("fresh"),
        ],
        probability="probability",
        segments="device",
        over="week",
    )


def test_periods_are_told_one_by_one_and_together_and_a_novelty_fades() -> None:
    told = report()
    table = told.period_table()
    assert table["scope"].value_counts().to_dict() == {"period": 12, "cumulative": 12}
    margin = table[(table["metric"] == "margin")]
    by_period = margin[margin["scope"] == "period"]
    together = margin[margin["scope"] == "cumulative"]
    assert by_period["n"].cumsum().tolist() == together["n"].tolist()
    last, whole = together.iloc[-1], told.results[1]
    assert (last["low"], last["high"]) == pytest.approx((whole.low, whole.high), rel=1e-9)
    assert [trend.verdict for trend in told.trends] == [
        "no change shown",
        "no change shown",
        "fades",
    ]
    assert told.trends[2].slope == pytest.approx(-0.4, abs=0.1)


def test_the_page_of_a_lift_report_is_whole_and_asks_for_nothing() -> None:
    page = report().to_html()
    assert not re.search(r"<script|src=|href=|@import|url\(", page)
    assert "<new>" not in page
    assert "&lt;new&gt; gains click" in page
    assert '<b class="bad">broken</b>' in page
    assert "fresh in &lt;new&gt; over time: " in page
    # Every element is closed, so that it reads as XML but for the document's own tags.
    body = page[page.index("<body>") : page.index("</body>") + len("</body>")]
    root = ET.fromstring(body)
    assert len(list(root.iter(f"{SVG}svg"))) == 1 + 2 * 3
    assert len(list(root.iter("tr"))) == 1 + 3 + 1 + 6


def test_a_report_without_numbers_still_makes_a_page() -> None:
    frame = pd.DataFrame({"variant": ["a", "b"] * 20, "y": range(40)})
    page = lift(frame, variant="variant", baseline="a", metrics=["y"]).to_html()
    assert "not_checked" in page
    assert "no interval" in page
    assert "<svg" not in page


def test_the_page_of_an_off_policy_report_shows_weights_and_refusals() -> None:
    known: dict[str, Any] = {"ess": 812.0, "max_weight_share": 0.01, "mean_weight": 1.02}
    data = {
        "surface": "home",
        "slot": "layout",
        "metric": "reward",
        "row": "decision",
        "results": [
            {"target": "B", "estimator": "ips", "value": 0.2, "se": 0.01, "low": 0.18,
             "high": 0.22, "interval": "jackknife", "n": 1000, "n_units": 900},
            {"target": "C", "estimator": "ips", "value": None, "se": None, "low": None,
             "high": None, "interval": "none", "n": 1000, "n_units": 900},
        ],
        "comparisons": [
            {"target": "B", "against": "C", "estimator": "ips", "difference": 0.1, "se": 0.01,
             "low": 0.08, "high": 0.12, "interval": "jackknife", "low_adjusted": 0.07,
             "high_adjusted": 0.13, "p_adjusted": 0.01, "verdict": "higher", "advice": "try <it>"},
        ],
        "diagnostics": {
            "B": {"verdict": "ok", "reason": "", **known},
            "C": {"verdict": "not_estimable", "reason": "ESS of 2 & less", **known},
        },
        "left_out": {"open_windows": 3},
        "notes": [],
    }  # fmt: skip
    page = ope_page(data)
    assert '<b class="bad">not_estimable</b>: ESS of 2 &amp; less' in page
    root = ET.fromstring(page[page.index("<body>") : page.index("</body>") + len("</body>")])
    assert len(list(root.iter(f"{SVG}svg"))) == 5
    assert "B against C by ips: try &lt;it&gt;" in page
    assert "3 open windows" in page
