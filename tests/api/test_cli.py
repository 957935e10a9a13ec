"""Every command: its help, its JSON, its exit status, and messages that say what to mend."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.data import _print_learned
from api.cli.demo import EXAMPLE
from api.cli.main import app
from engine.version import __version__
from tests.api.running import counts, evenhand, file_of
from tests.api.workspaces import EXPERIMENTS, SURFACES, write_workspace

COMMANDS = (
    "serve",
    "demo",
    "simulate",
    "check",
    "import",
    "export",
    "learn",
    "tune",
    "snapshots",
    "promote",
    "rollback",
    "replay",
    "forget",
    "load-items",
    "load-interactions",
    "train-recs",
    "eval-recs",
    "lift",
    "ope",
)
GROUPS = {"keys": ("create", "list", "revoke")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status in {0, 1}, self.err
        return json.loads(self.out)


def run(*arguments: object) -> Ran:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, " ".join(result.stderr.split()))


# Usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    ran = run(command, "--help")
    assert ran.status == 0
    assert "Usage:" in ran.out


def test_the_commands_are_those_of_the_contract() -> None:
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    groups = {
        group.name: tuple(command.name for command in group.typer_instance.registered_commands)
        for group in app.registered_groups
        if group.typer_instance
    }
    assert groups == GROUPS


def test_the_version_is_told() -> None:
    assert run("--version").out.strip() == f"evenhand {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("guess",),
        ("check",),
        ("lift", "--experiment"),
        ("ope", "--surface=home"),
        ("serve", "--port=seventy"),
        ("serve", "--port=70000"),
        ("serve", "--workspace=w", "--database=d", "--rate=-1"),
        ("keys", "create", "--name=web"),
        ("keys", "create", "--scope=decide"),
        ("keys", "create", "--name=web", "--scope=fly"),
        ("keys", "revoke"),
        ("simulate", "--days=0"),
        ("replay", "--last=0"),
        ("lift", "--experiment=a", "--loud"),
    ],
)
def test_bad_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.status == 2
    assert "Error" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("lift",), "experiment"),
        (("lift", "--holdout=h", "--group=learned=b"), "experiment"),
        (("lift", "--experiment=e", "--holdout=h"), "holdout"),
    ],
)
def test_lift_of_nothing_or_of_too_much_is_refused_before_a_log_is_opened(
    arguments: tuple[str, ...], field: str
) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert f"`{field}`" in ran.err


def test_the_installed_command_exits_with_the_status() -> None:
    ran = evenhand("lift", "--experiment=e", "--database=sqlite:////nowhere/at.db", "--json")
    assert ran.returncode == 2
    assert json.loads(ran.stderr).keys() == {"kind", "field", "message"}
    assert ran.stdout == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_without_keys_only_loopback_is_served(folder: Path, database: str, host: str) -> None:
    ran = run("serve", "--no-auth", "--workspace", folder, "--database", database, "--host", host)
    assert ran.status == 2
    assert f'`--host` is "{host}"' in ran.err
    assert "127.0.0.1" in ran.err


@pytest.mark.parametrize("options", [("--no-auth", "--rate=5"), ("--rate=inf",)])
def test_a_rate_that_limits_nothing_is_refused(
    folder: Path, database: str, options: tuple[str, ...]
) -> None:
    ran = run("serve", "--workspace", folder, "--database", database, *options)
    assert ran.status == 2
    assert "`--rate` is" in ran.err


def test_a_workspace_with_faults_is_not_served(folder: Path, database: str) -> None:
    """Whatever the faulty value holds, it is shown as it stands."""
    surfaces = SURFACES.replace("policy: layout", 'policy: "[/bold]"')
    (folder / "surfaces.yaml").write_text(surfaces, encoding="utf-8")
    ran = run("serve", "--no-auth", "--workspace", folder, "--database", database)
    assert ran.status == 2
    assert "[/bold]" in ran.err
    assert "surfaces.yaml:" in ran.err


# check --------------------------------------------------------------------------------------------


def test_a_sound_workspace_is_summed_up(folder: Path) -> None:
    assert "is sound" in run("check", folder).out
    summary = run("check", folder, "--json").json()
    assert summary.keys() == {
        "ok", "revision", "surfaces", "policies", "experiments", "learners",
    }  # fmt: skip
    assert summary["ok"] is True
    assert set(summary["surfaces"]) == {"home", "nudge", "triggered"}


def test_faults_are_told_all_at_once_with_their_places(folder: Path) -> None:
    surfaces = SURFACES.replace("weeks >= 1 &&", "wekes >= 1 &&")
    (folder / "surfaces.yaml").write_text(surfaces, encoding="utf-8")
    broken = EXPERIMENTS.replace("share: 0.05", "share: 1.5").replace("0.5]", "1.5]")
    (folder / "experiments.yaml").write_text(broken, encoding="utf-8")
    ran = run("check", folder, "--json")
    assert ran.status == 2
    told = json.loads(ran.out)
    assert told["ok"] is False
    assert len(told["faults"]) == 3
    for fault in told["faults"]:
        assert fault.keys() == {"file", "line", "field", "value", "message"}
        assert (folder / fault["file"]).is_file()
        assert fault["line"] > 1
    text = run("check", folder)
    assert text.status == 2
    assert "3 faults" in text.err
    for fault in told["faults"]:
        assert f"`{fault['field']}`" in text.err


def test_a_folder_that_is_none_is_a_fault() -> None:
    ran = run("check", "no/such/folder", "--json")
    assert ran.status == 2
    assert "no/such/folder" in ran.out


# The loop -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a simulated fortnight."""
    url = f"sqlite:///{tmp_path_factory.mktemp('lived')}/log.db"
    ran = run("simulate", "--database", url, "--days", 14, "--viewers", 80, "--seed", 7)
    assert ran.status == 0, ran.err
    return url


LIFT = ("lift", "--experiment=layout_bandit", "--metric=watch", "--json")
OPE = (
    "ope", "--surface=home", "--slot=layout", "--target=B", "--target=uniform",
    "--target=home_layout", "--against=logging", "--metric=watch", "--json",
)  # fmt: skip


def test_learning_again_finds_nothing_new(lived: str) -> None:
    report = run("learn", "--database", lived, "--json").json()
    assert report
    for entry in report:
        assert entry.keys() == {
            "learner",
            "snapshot",
            "learned",
            "passed_over",
            "winner",
            "warnings",
        }
        assert (entry["learned"], entry["snapshot"]) == (0, None)


def test_a_refit_on_half_of_the_units_learns_from_half(lived: str) -> None:
    half = run("learn", "--database", lived, "--units=0:0.5", "--refit", "--json").json()
    whole = run("learn", "--database", lived, "--refit", "--json").json()
    for part, all_ in zip(half, whole, strict=True):
        assert part["learned"] + part["passed_over"] == all_["learned"]
    assert sum(part["learned"] for part in half) > 0


def test_lift_is_reported_as_json(lived: str) -> None:
    report = run(*LIFT, "--database", lived).json()
    assert report["srm"].keys() == {"p_value", "verdict"}
    (row,) = report["results"]
    assert row["n"] > 0
    assert (row["variant"], row["baseline"]) == ("bandit", "control")
    assert "sample ratio" in run(*LIFT[:-1], "--database", lived).out


def test_reports_are_written_as_pages(lived: str, tmp_path: Path) -> None:
    for command in (LIFT[:-1], OPE[:-1]):
        page = tmp_path / f"{command[0]}.html"
        assert run(*command, "--database", lived, "--html", page).status == 0
        assert page.read_text().startswith("<!doctype html>")
    ran = run(*LIFT[:-1], "--database", lived, "--html", tmp_path / "no" / "such.html")
    assert (ran.status, "`html`" in ran.err) == (2, True)


def test_lift_over_time_has_a_row_for_each_day_and_all_up_to_it(lived: str) -> None:
    periods = run(*LIFT, "--database", lived, "--over=day").json()["periods"]
    days = [row["period"] for row in periods if row["scope"] == "period"]
    assert days == sorted(set(days))
    assert days == [row["period"] for row in periods if row["scope"] == "cumulative"]


def test_a_holdout_and_learning_apart_from_acting_are_reported(lived: str, tmp_path: Path) -> None:
    asked = ("lift", "--holdout=global_2026", "--metric=watch", "--horizon=fixed", "--over=week")
    report = run(*asked, "--database", lived, "--json").json()
    (row,) = report["results"]
    assert (report["holdout"], row["baseline"], row["variant"]) == (
        "global_2026", "holdout", "decided",
    )  # fmt: skip
    assert {p["scope"] for p in report["periods"]} == {"period", "cumulative"}
    assert "Over time" in run(*asked, "--database", lived).out
    groups: tuple[str, ...] = ("lift", "--experiment=layout_bandit", "--metric=watch")
    groups += (
        "--horizon=fixed",
        "--group=learned=bandit",
        "--group=usual=control",
        "--holdout=global_2026",
    )
    learning = run(*groups, "--database", lived, "--json").json()
    assert list(learning["pairs"]) == ["business as usual", "learning over usual", "all"]
    assert "learning over usual" in run(*groups, "--database", lived).out
    for command in (asked, groups):
        page = tmp_path / "page.html"
        assert run(*command, "--database", lived, "--html", page).status == 0
        assert page.read_text().startswith("<!doctype html>")
        assert "<svg" in page.read_text()


def test_off_policy_values_are_reported_as_json(lived: str) -> None:
    report = run(*OPE, "--database", lived).json()
    assert {row["target"] for row in report["results"]} == {"B", "uniform", "home_layout"}
    assert {c["against"] for c in report["comparisons"]} <= {"logging"}
    assert report["diagnostics"].keys() == {"B", "uniform", "home_layout"}
    assert "Diagnostics" in run(*OPE[:-1], "--database", lived).out


def test_units_select_a_part(lived: str) -> None:
    def units(*selector: str) -> int:
        (row,) = run(*LIFT, "--database", lived, *selector).json()["results"]
        n: int = row["n"]
        return n

    assert 0 < units("--units=0:0.5") < units()


def test_reports_from_an_export_equal_those_from_the_database(lived: str, tmp_path: Path) -> None:
    to = tmp_path / "export"
    written = run("export", "--database", lived, "--to", to, "--full", "--json").json()
    assert written["decisions"] == counts(lived)["decisions"]
    assert written["outcomes"] == counts(lived)["outcomes"]
    again = run("export", "--database", lived, "--to", to, "--full", "--json").json()
    assert (again["decisions"], again["outcomes"]) == (0, 0)
    for report in (LIFT, OPE):
        assert run(*report, "--log", to).json() == run(*report, "--database", lived).json()


def test_a_replay_is_identical_to_the_byte(lived: str) -> None:
    results = run("replay", "--database", lived, "--last", 50, "--json").json()
    assert len(results) == 50
    for result in results:
        assert result["identical"] is True
        assert result["differences"] == []
    one = results[0]["decision_id"]
    assert [r["decision_id"] for r in run("replay", one, "--database", lived, "--json").json()] == [
        one
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lift", "--experiment=nothing"), "known: "),
        (("lift", "--holdout=nothing"), "known: global_2026"),
        (("lift", "--group=learned=bandit"), "`experiment`"),
        (("lift", "--experiment=layout_bandit", "--holdout=global_2026"), "add its groups"),
        (("lift", "--experiment=layout_bandit", "--group=learned"), "write one of learned"),
        (("lift", "--experiment=layout_bandit", "--group=wise=bandit"), "write one of learned"),
        (
            ("lift", "--experiment=layout_bandit", "--group=none=bandit", "--group=none=control"),
            "names none twice",
        ),
        (("lift", "--experiment=layout_bandit", "--group=learned=wise"), "no variant of"),
        (("lift", "--experiment=layout_bandit", "--metric=joy"), "`metric`"),
        (("lift", "--experiment=layout_bandit", "--units=1:0"), "`units`"),
        (("ope", "--surface=away", "--slot=a", "--target=b"), "`surface`"),
        (("ope", "--surface=home", "--slot=foot", "--target=b"), "`slot`"),
        (("ope", "--surface=home", "--slot=layout", "--target=guess"), "`target`"),
        (("ope", "--surface=home", "--slot=layout", "--target=home_layout@zz"), "@zz"),
        (("ope", "--surface=home", "--slot=layout", "--target=nowhere.csv"), "no file"),
        (("replay", "nobody"), "nobody"),
        (("learn", "--units=most"), "`units`"),
        (("simulate", "--days=14", "--viewers=80", "--seed=7"), "already holds"),
    ],
)
def test_what_cannot_be_answered_says_what_to_mend(
    lived: str, arguments: tuple[str, ...], says: str
) -> None:
    ran = run(*arguments, "--database", lived)
    assert ran.status == 2
    assert says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "source",
    [
        (),
        ("--database=postgresql://localhost/a",),
        ("--database=guess",),
        ("--database=sqlite:////nowhere/at.db",),
        ("--log=/nowhere",),
        ("--log=/nowhere", "--database=sqlite:///a.db"),
    ],
)
def test_a_log_that_is_none_is_refused(source: tuple[str, ...]) -> None:
    ran = run("lift", "--experiment=layout_bandit", *source)
    assert ran.status == 2
    assert "give" in ran.err or "write" in ran.err


# import -------------------------------------------------------------------------------------------

HEAD = "who,when,shown,chance,clicked,age\n"
ROWS = [
    f"u{n},2026-03-0{n % 7 + 1}T10:00:00Z,{'ab'[n % 2]},0.5,{int(n % 3 == 0)},{20 + n}"
    for n in range(40)
]
MAPPING: dict[str, Any] = {
    "surface": "mail",
    "slot": "body",
    "unit": "who",
    "decided_at": "when",
    "action": "shown",
    "propensity": "chance",
    "outcomes": {"click": "clicked"},
    "context": {"age": "integer"},
    "experiment": {"id": "mailing", "variant": "shown", "baseline": "a"},
}


MAIL = """
surfaces:
  mail:
    owner: growth@example.com
    attributes: {age: integer}
    metrics: {click: {window: 1d}}
    slots: {body: {default: a, actions: {a: {value: a}, c: {value: c}}}}
"""


def import_(
    folder: Path, database: str, mapping: dict[str, Any] | str = "", rows: list[str] | None = None
) -> Ran:
    """Import rows with a mapping, written to a folder."""
    (folder / "rows.csv").write_text(HEAD + "\n".join(ROWS if rows is None else rows) + "\n")
    text = (
        json.dumps(mapping or MAPPING) if not isinstance(mapping, str) or not mapping else mapping
    )
    (folder / "mapping.yaml").write_text(text)
    files = folder / "rows.csv", "--mapping", folder / "mapping.yaml"
    return run("import", *files, "--database", database, "--json")


def test_an_import_is_stored_once_and_reported_on(tmp_path: Path, database: str) -> None:
    first = import_(tmp_path, database).json()
    assert first.keys() == {"rows", "decisions", "outcomes", "revision"}
    assert (first["rows"], first["decisions"], first["outcomes"]) == (40, 40, 40)
    before = counts(database)
    again = import_(tmp_path, database).json()
    assert (again["rows"], again["decisions"], again["outcomes"]) == (40, 0, 0)
    assert counts(database) == before
    (row,) = run("lift", "--experiment=mailing", "--database", database, "--json").json()["results"]
    shares = [[n % 3 == 0 for n in range(40) if n % 2 == odd] for odd in (0, 1)]
    assert row["n"] == 20
    assert row["baseline_mean"] == pytest.approx(sum(shares[0]) / 20)
    assert row["mean"] == pytest.approx(sum(shares[1]) / 20)
    ope = ("ope", "--surface=mail", "--slot=body", "--target=a", "--database", database, "--json")
    values = {r["estimator"]: r["value"] for r in run(*ope).json()["results"]}
    assert values["ips"] == pytest.approx(2 * sum(shares[0]) / 40)


def test_an_imported_decision_cannot_be_replayed(tmp_path: Path, database: str) -> None:
    import_(tmp_path, database)
    ran = run("replay", "--database", database)
    assert ran.status == 2
    assert "nothing to replay" in ran.err


def test_a_lopsided_experiment_fails_its_check_and_strict_exits_with_1(
    tmp_path: Path, database: str
) -> None:
    rows = [row for n, row in enumerate(ROWS * 10) if n % 2 or n % 10 == 0]
    rows = [f"{n}{row}" for n, row in enumerate(rows)]
    import_(tmp_path, database, rows=rows)
    report = ("lift", "--experiment=mailing", "--database", database)
    assert run(*report).status == 0
    strict = run(*report, "--strict", "--json")
    assert strict.status == 1
    assert strict.json()["srm"]["verdict"] == "failed"


def nothing_stored(database: str) -> bool:
    if not file_of(database).exists():
        return True
    with closing(sqlite3.connect(file_of(database))) as connection:
        (revisions,) = connection.execute("SELECT count(*) FROM activations").fetchone()
    return revisions == 0 and not any(counts(database).values())


def changed(**parts: Any) -> dict[str, Any]:
    return {key: value for key, value in (MAPPING | parts).items() if value is not None}


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (changed(unit="whom"), '`unit` names column "whom"'),
        (changed(action="showed"), '`action` names column "showed"'),
        (changed(decided_at="yesterday"), '`decided_at` is "yesterday"'),
        (changed(propensity=0.0), "`propensity` is not in (0, 1]"),
        (changed(propensity=1.5), "`propensity` is not in (0, 1]"),
        (changed(propensity={"a": 0.5}), '`propensity` says nothing of "b"'),
        (changed(outcomes={}), "outcomes"),
        (changed(outcomes={"click": "shown"}), "`outcomes.click` is no finite number"),
        (changed(context={"age": "colour"}), '`context.age` is "colour"'),
        (changed(context={"age": {"type": "integer", "column": "years"}}), "years"),
        (changed(pmf={"a": "chance"}), '`pmf` says nothing of "b"'),
        (changed(pmf={"a": "chance", "b": "age"}), "`pmf` does not sum to 1"),
        (changed(surface=None), "surface"),
        (changed(wieght=1), "wieght"),
        (changed(surface="not an id"), "not an id"),
        ("surface: [", "YAML"),
        ("- 1", "mapping"),
    ],
)
def test_a_bad_mapping_stores_nothing(
    tmp_path: Path, database: str, mapping: dict[str, Any] | str, says: str
) -> None:
    ran = import_(tmp_path, database, mapping)
    assert ran.status == 2
    assert says in ran.err.replace('\\"', '"')
    assert nothing_stored(database)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("u9,2026-03-01T10:00:00Z,a,,1,30", "`propensity` is not in (0, 1]"),
        ("u9,2026-03-01T10:00:00Z,a,nine,1,30", "first in row 41"),
        ("u9,2026-03-01T10:00:00,a,0.5,1,30", "zone"),
        ("u9,soon,a,0.5,1,30", "`decided_at`"),
        (",2026-03-01T10:00:00Z,a,0.5,1,30", "`unit` is missing"),
        ("u9,2026-03-01T10:00:00Z,,0.5,1,30", "`action` is missing"),
        ("u9,2026-03-01T10:00:00Z,a,0.5,inf,30", "`outcomes.click` is no finite number"),
        ("u9,2026-03-01T10:00:00Z,a,0.5,1,30.5", "`context.age` is no integer"),
        ("u9,2026-03-01T10:00:00Z,a b,0.5,1,30", "a b"),
        ("u9,2026-03-01T10:00:00Z,a,0.5,1,30,6,7", "cannot be read"),
    ],
)
def test_a_bad_row_stores_nothing(tmp_path: Path, database: str, row: str, says: str) -> None:
    ran = import_(tmp_path, database, rows=[*ROWS, row])
    assert ran.status == 2
    assert says in ran.err.replace('\\"', '"')
    assert nothing_stored(database)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"u9,2026-03-01T10:00:00Z,a,0.5,1,{2**60}", "`context.age` is 1152921504606846976"),
        (f"{'u' * 10_000},2026-03-01T10:00:00Z,a,0.5,1,30", "`unit` has 10,000 characters"),
    ],
)
def test_a_bad_row_far_down_stores_nothing(
    tmp_path: Path, database: str, row: str, says: str
) -> None:
    """Every row is checked before any is stored, though they are written in parts."""
    ran = import_(tmp_path, database, rows=[*ROWS * 51, row])
    assert ran.status == 2
    assert says in ran.err
    assert "(in 1 row, first in row 2041)" in ran.err
    assert nothing_stored(database)


def test_an_action_that_the_workspace_lacks_stores_nothing(tmp_path: Path, database: str) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "mail.yaml").write_text(MAIL, encoding="utf-8")
    (tmp_path / "rows.csv").write_text(HEAD + "\n".join(ROWS))
    (tmp_path / "mapping.yaml").write_text(json.dumps(changed(experiment=None)))
    files = tmp_path / "rows.csv", "--mapping", tmp_path / "mapping.yaml"
    ran = run("import", *files, "--database", database, "--workspace", workspace)
    assert ran.status == 2
    assert '`action` is "b" in row 2' in ran.err
    assert nothing_stored(database)


def test_a_table_without_rows_is_refused(tmp_path: Path, database: str) -> None:
    ran = import_(tmp_path, database, rows=[])
    assert ran.status == 2
    assert "no rows" in ran.err


def test_other_content_under_the_same_source_is_refused(tmp_path: Path, database: str) -> None:
    import_(tmp_path, database)
    before = counts(database)
    ran = import_(tmp_path, database, rows=[ROWS[0].replace("0.5", "0.25"), *ROWS[1:]])
    assert ran.status == 2
    assert "imported before with other content" in ran.err
    assert counts(database) == before


def test_the_example_workspace_is_sound() -> None:
    assert run("check", EXAMPLE).status == 0


def test_the_demo_decides_learns_and_proves(tmp_path: Path) -> None:
    ran = run("demo", "--days", 9, "--viewers", 40, "--database", f"sqlite:///{tmp_path}/d.db")
    assert ran.status == 0, ran.err
    for told in ("Decide, log, learn", "Why?", "identical to the byte", "sample ratio", "Value of"):
        assert told in ran.out


def test_the_workspaces_of_these_tests_are_sound(tmp_path: Path) -> None:
    assert run("check", write_workspace(tmp_path / "w")).status == 0


def test_learning_tells_who_wins(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"learner": "home.layout", "learned": 0, "passed_over": 0, "snapshot": None}
    winner = {"action": "B", "probability": 0.97, "settled": True}
    _print_learned([{**entry, "winner": winner, "warnings": []}])
    told = capsys.readouterr().out
    assert "home.layout: B is the best with probability 0.970, settled" in told
