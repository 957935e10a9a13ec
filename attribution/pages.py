"""Reports as one self-contained page of HTML, from their JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from attribution.plots import Bar, Interval, Point, band_plot, bar_plot, interval_plot
from attribution.wording import comparison_advice, ends, left_out

Report = Mapping[str, Any]

_STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--rule:#d9dee5;--paper:#fff;--good:#0b7a4b;--bad:#b3261e;
--open:#4a6fa5;--band:#4a6fa533}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--rule:#333c48;
--paper:#12161c;--good:#4cc38a;--bad:#ff7b72;--open:#8db4ec;--band:#8db4ec33}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--rule);vertical-align:top}
td.n,th.n{text-align:right}td.n,th.n,td.ends{white-space:nowrap}
.wide{overflow-x:auto}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.open{color:var(--open)}.note{border-left:4px solid var(--bad);padding:.2rem .8rem}
svg{width:100%;height:auto;font:12px system-ui,sans-serif;fill:var(--ink)}
svg .grid{stroke:var(--rule)}svg .zero{stroke:var(--soft);stroke-width:1.5}
svg g.good{stroke:var(--good);fill:var(--good)}svg g.bad{stroke:var(--bad);fill:var(--bad)}
svg g.open{stroke:var(--open);fill:var(--open)}svg g line{stroke-width:2.5}
svg .hollow{fill:var(--paper);stroke-width:2}svg .band{fill:var(--band)}
svg polyline.mid{fill:none;stroke:var(--open);stroke-width:2}
svg circle.mid,svg .bar{fill:var(--open)}
"""


def lift_page(report: Report) -> str:
    """A lift report: the sample ratio, effects and intervals, guardrails, effects over time."""
    title = "Lift"
    if "experiment" in report:
        title = f"Lift of {report['experiment']}"
    elif "holdout" in report:
        title = f"Lift of all that {report['holdout']} holds out"
    body = [_ratio("Sample ratio", report["srm"])]
    body += [f'<p class="note"><b>Finding:</b> {escape(each)}</p>' for each in report["findings"]]
    rows = [
        Interval(
            f"{r['metric']} · {r['variant']}",
            r["relative"],
            r["relative_low"],
            r["relative_high"],
            _tone(r),
        )
        for r in report["results"]
        if r["relative_low"] is not None and r["population"] == "assigned"
    ]
    if rows:
        said = "Relative to the baseline. ● better, ■ worse, ○ not told apart or no direction."
        body.append(f'<h2>Effects</h2><p class="soft">{said}</p>')
        body.append(interval_plot("Relative effects", rows, _signed_percent))
    body.append(_lift_table(report["results"]))
    body += _guardrails(report["guardrails"])
    body += _over_time(report["periods"])
    for trend in report["trends"]:
        body.append(f"<p>{escape(trend['metric'])} in {escape(trend['variant'])} over time: ")
        body.append(f"{escape(trend['verdict'])}.</p>")
    if report["segments"]:
        body.append("<h2>Segments</h2>")
        body.append(_segments(report["segments"], report["interactions"]))
    return _page(title, [*body, *_notes(report)])


def learning_page(report: Report) -> str:
    """What learning and acting were worth: each pair of groups by metric, and over time."""
    pairs: Mapping[str, Report] = report["pairs"]
    body = [_ratio(f"Sample ratio of {name}", pair["srm"]) for name, pair in pairs.items()]
    for name, pair in pairs.items():
        body += [
            f'<p class="note"><b>Finding in {escape(name)}:</b> {escape(each)}</p>'
            for each in pair["findings"]
        ]
    metrics = dict.fromkeys(r["metric"] for pair in pairs.values() for r in pair["results"])
    for metric in metrics:
        rows = [
            Interval(name, r["difference"], r["low"], r["high"], _tone(r))
            for name, pair in pairs.items()
            for r in pair["results"]
            if r["metric"] == metric and r["low"] is not None
        ]
        if rows:
            said = "In the metric's unit. ● better, ■ worse, ○ not told apart or no direction."
            body.append(f'<h2>{escape(metric)}</h2><p class="soft">{said}</p>')
            body.append(interval_plot(f"Differences in {metric}", rows, _number))
    for name, pair in pairs.items():
        body.append(f"<h2>{escape(name.capitalize())}</h2>")
        body.append(_lift_table(pair["results"]))
        body += _over_time(pair["periods"])
    title = f"What learning and acting were worth in {report['experiment']}"
    return _page(title, [*body, *_notes(report)])


def ope_page(report: Report) -> str:
    """An off-policy report: values, paired differences, weights and overlap."""
    place = f"{report['surface']}.{report['slot']}"
    body = []
    for name, d in report["diagnostics"].items():
        tone = {"ok": "good", "weak": "open"}.get(d["verdict"], "bad")
        why = "" if d["verdict"] == "ok" else f": {escape(str(d['reason']))}"
        body.append(f'<p>{escape(name)}: <b class="{tone}">{d["verdict"]}</b>{why}</p>')
    known = [r for r in report["results"] if r["low"] is not None]
    rows = [
        Interval(f"{r['target']} · {_estimator(r)}", r["value"], r["low"], r["high"]) for r in known
    ]
    if rows:
        body.append(f"<h2>Values ({escape(report['metric'])} per {escape(report['row'])})</h2>")
        # A value's distance from zero tells nothing, and would flatten the differences.
        body.append(interval_plot("Values of targets", rows, _number, zero=False))
    values = ("target", "estimator", "value", "se", "95 %", "by", "rows", "units")
    body.append(
        _table(
            values,
            [
                (
                    *(r[name] for name in ("target", "estimator", "value", "se")),
                    ends(r["low"], r["high"]),
                    *(r[name] for name in ("interval", "n", "n_units")),
                )
                for r in report["results"]
            ],
        )
    )
    if report["comparisons"]:
        body.append("<h2>Paired differences on the same log</h2>")
        pairs = [
            Interval(
                f"{c['target']} − {c['against']} · {_estimator(c)}",
                c["difference"],
                c["low"],
                c["high"],
            )
            for c in report["comparisons"]
            if c["low"] is not None
        ]
        body.append(interval_plot("Paired differences", pairs, _number))
        body.append(_paired_table(report["comparisons"]))
        items = "".join(f"<li>{escape(said)}</li>" for said in comparison_advice(report))
        body.append(f"<h2>What next</h2><ul>{items}</ul>")
    body.append("<h2>Weights and overlap</h2>")
    for field, said in (
        ("ess", "Effective units"),
        ("max_weight_share", "Largest share of one unit in all weight"),
        ("mean_weight", "Mean weight, 1 where the log covers the target"),
    ):
        bars = [
            Bar(name, d[field])
            for name, d in report["diagnostics"].items()
            if d.get(field) is not None
        ]
        body.append(f'<h3 class="soft">{said}</h3>' + bar_plot(said, bars, _number))
    return _page(f"Value of targets for {place}", [*body, *_notes(report)])


def _estimator(row: Report) -> str:
    """An estimator's name; whether it is biased, which its interval does not show."""
    return f"{row['estimator']} (biased)" if "bias" in row["interval"] else str(row["estimator"])


def _ratio(name: str, srm: Report) -> str:
    tone = "bad" if srm["verdict"] == "failed" else "good"
    p_value = "" if srm["p_value"] is None else f", p = {srm['p_value']:.3g}"
    return f'<p>{escape(name)}: <b class="{tone}">{srm["verdict"]}</b>{p_value}.</p>'


def _lift_table(results: Sequence[Report]) -> str:
    header = ("metric", "variant", "units", "baseline", "mean", "difference", "interval", "verdict")
    return _table(
        (*header, "what next"),
        [
            (
                r["metric"] if r["population"] == "assigned" else f"{r['metric']} (exposed)",
                r["variant"],
                r["n"],
                r["baseline_mean"],
                r["mean"],
                r["difference"],
                ends(r["low"], r["high"]),
                r["verdict"],
                r["advice"],
            )
            for r in results
        ],
    )


def _paired_table(comparisons: Sequence[Report]) -> str:
    header = ("target", "against", "estimator", "difference", "95 %", "all at once", "p adjusted")
    return _table(
        (*header, "by", "verdict"),
        [
            (
                *(c[name] for name in ("target", "against", "estimator", "difference")),
                ends(c["low"], c["high"]),
                ends(c["low_adjusted"], c["high_adjusted"]),
                *(c[name] for name in ("p_adjusted", "interval", "verdict")),
            )
            for c in comparisons
        ],
    )


def _guardrails(guardrails: Sequence[Report]) -> list[str]:
    if not guardrails:
        return []
    tone = {"held": "good", "broken": "bad"}
    items = "".join(
        f"<li>{escape(g['metric'])} in {escape(g['variant'])}: "
        f'<b class="{tone.get(g["verdict"], "open")}">{g["verdict"]}</b> '
        f"(better is {g['direction']}, margin {g['margin']:g})</li>"
        for g in guardrails
    )
    return ["<h2>Guardrails</h2>", f"<ul>{items}</ul>"]


def _over_time(periods: Sequence[Report]) -> list[str]:
    """A chart of the cumulative effect and of each period's, for every metric and variant."""
    charts: dict[str, list[Point]] = {}
    for row in periods:
        point = Point(str(row["period"]), *(_known(row[n]) for n in ("difference", "low", "high")))
        name = f"{row['metric']} in {row['variant']}, {row['scope']}"
        charts.setdefault(name, []).append(point)
    drawn = [band_plot(name, points, _number) for name, points in charts.items()]
    body = [
        f'<h3 class="soft">{escape(name)}</h3>{chart}'
        for name, chart in zip(charts, drawn, strict=True)
        if chart
    ]
    return ["<h2>Over time</h2>", *body] if body else []


def _segments(segments: Sequence[Report], interactions: Sequence[Report]) -> str:
    header = ("segment", "metric", "variant", "n", "baseline_mean", "mean", "difference")
    table = _table(
        (*header, "interval", "verdict"),
        [
            (*(s[name] for name in header), ends(s["low"], s["high"]), s["verdict"])
            for s in segments
        ],
    )
    told = "".join(
        f"<li>{escape(i['metric'])} in {escape(i['variant'])} between segments: "
        f"{escape(i['verdict'])}</li>"
        for i in interactions
    )
    return f"{table}<ul>{told}</ul>"


def _notes(report: Report) -> list[str]:
    notes = [*report.get("notes", ()), *left_out(report)]
    if not notes:
        return []
    return [f'<ul class="soft">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>']


def _page(title: str, body: Sequence[str]) -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{''.join(body)}</body></html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    numeric = [
        all(isinstance(row[place], int | float | None) for row in rows)
        for place in range(len(header))
    ]
    cells = [' class="n"' if each else "" for each in numeric]
    head = "".join(
        f'<th scope="col"{cell}>{escape(name.replace("_", " "))}</th>'
        for name, cell in zip(header, cells, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{c or _ends_class(v)}>{escape(_text(v))}</td>"
            for v, c in zip(row, cells, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _ends_class(value: Any) -> str:
    """The class that keeps an interval's two ends on one line."""
    return ' class="ends"' if isinstance(value, str) and value.startswith("[") else ""


def _tone(row: Report) -> str:
    advice = str(row["advice"])
    if advice.startswith("better"):
        return "good"
    return "bad" if advice.startswith("worse") else "open"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return _number(value) if isinstance(value, float) else str(value)


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: float) -> str:
    return f"{value:.4g}"


def _signed_percent(value: float) -> str:
    if value == 0:
        return "0%"
    return f"{value:+.1%}" if round(value, 2) != value else f"{value:+.0%}"
