"""An export holds one log, in one way, in files that are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ReportError
from engine.exporting import export
from engine.logsource import ExportedLog
from engine.models import initial_snapshot
from engine.store import Store
from tests.engine.build import NOW, SECOND, Desk, workspace_of

TEXT = """
surfaces:
  home:
    owner: growth@example.com
    metrics: {click: {window: 1h, aggregate: max, range: [0, 1]}}
    reward: {click: 1.0}
    slots: {layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}}
policies: {p: {kind: thompson_beta}}
"""


@pytest.fixture
def desk(store: Store) -> Desk:
    """A log with a decision and a snapshot."""
    desk = Desk(store, workspace_of(TEXT))
    desk.decide()
    (learner,) = desk.workspace.learners.values()
    store.write([initial_snapshot(learner, NOW)], NOW)
    return desk


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """Another database, in which the same workspace was activated later."""
    opened = Store(f"sqlite:///{tmp_path / 'other.db'}", writer="tests")
    yield opened
    opened.close()


def only_snapshot(folder: Path) -> tuple[str, Path]:
    """The digest of an export's one snapshot, and its file."""
    (file,) = (folder / "snapshots").glob("*.bin")
    return file.stem, file


def test_a_damaged_snapshot_is_mended_by_the_next_export(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "to"
    export(desk.store, to)
    digest, file = only_snapshot(to)
    sound = file.read_bytes()
    for damaged in (b"", sound[:-1], sound + b"\0"):
        file.write_bytes(damaged)
        export(desk.store, to)
        assert file.read_bytes() == sound
    ExportedLog(to).policy(digest)


def test_a_damaged_revision_is_mended_by_the_next_export(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "to"
    export(desk.store, to)
    (to / "revisions" / f"{desk.workspace.revision}.json").write_bytes(b"{")
    (to / "revisions" / "latest").write_bytes(b"")
    export(desk.store, to)
    assert ExportedLog(to).workspace() == desk.workspace


def test_no_file_is_ever_seen_in_part(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is written under another name first: what stops there leaves none in part."""
    seen: list[str] = []
    moved = Path.replace

    def noted(self: Path, target: Path) -> Path:
        assert not target.exists()
        seen.append(target.name)
        return moved(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    export(desk.store, tmp_path / "to", full=True)
    found = [file.name for file in (tmp_path / "to").rglob("*") if file.is_file()]
    assert sorted(seen) == sorted(found)


def test_an_export_that_stopped_before_its_first_file_can_go_on(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "source.unfinished").write_bytes(b"{")
    assert export(desk.store, to)["decisions"] == 1


@pytest.mark.parametrize(
    ("begun", "says"), [(True, "was begun with --full"), (False, "was begun without --full")]
)
def test_an_export_goes_on_as_it_was_begun(
    desk: Desk, tmp_path: Path, begun: bool, says: str
) -> None:
    """Else some parts would have whole records and some not."""
    to = tmp_path / "to"
    export(desk.store, to, full=begun)
    desk.decide(1)
    with pytest.raises(ReportError, match=says):
        export(desk.store, to, full=not begun)
    assert export(desk.store, to, full=begun)["decisions"] == 1
    assert len(list((to / "traces").glob("*"))) == 2 * begun


def test_another_database_is_refused(desk: Desk, other: Store, tmp_path: Path) -> None:
    """Even one with the same workspace, served since the same moment."""
    to = tmp_path / "to"
    export(desk.store, to)
    before = {file: file.read_bytes() for file in to.rglob("*") if file.is_file()}
    Desk(other, desk.workspace).decide(at=NOW + SECOND)
    with pytest.raises(ReportError, match="holds the export of another database"):
        export(other, to)
    assert {file: file.read_bytes() for file in to.rglob("*") if file.is_file()} == before


def test_another_database_is_refused_before_its_first_decision(
    desk: Desk, other: Store, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    export(desk.store, to)
    with pytest.raises(ReportError, match="another database"):
        export(other, to)


def test_a_log_without_decisions_is_begun_and_gone_on_with(store: Store, tmp_path: Path) -> None:
    to = tmp_path / "to"
    desk = Desk(store, workspace_of(TEXT))
    assert export(store, to)["decisions"] == 0
    desk.decide()
    assert export(store, to)["decisions"] == 1
    assert export(store, to)["decisions"] == 0


@pytest.mark.parametrize("content", [None, "{", '{"full": 1}'])
def test_a_folder_of_something_else_is_refused(
    store: Store, tmp_path: Path, content: str | None
) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "notes.txt").write_text("mine")
    if content is not None:
        (to / "source.json").write_text(content)
    with pytest.raises(ReportError, match="something else than an export"):
        export(store, to)
