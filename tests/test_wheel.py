"""What is installed from a wheel works without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.console import ROOT

EXAMPLE = ROOT / "examples" / "streaming" / "workspace"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_the_example_and_all_that_code_reads(installed: Path) -> None:
    shipped = installed / "engine" / "simulate" / "workspace"
    assert {file.name: file.read_bytes() for file in shipped.iterdir()} == {
        file.name: file.read_bytes() for file in EXAMPLE.iterdir()
    }
    assert list((installed / "engine" / "store" / "migrations" / "versions").glob("0*.py"))
    tops = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert tops == {"api", "attribution", "engine", "experiments", "policies", "recsys"}


def test_an_installed_simulation_finds_the_example(installed: Path, tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/log.db"
    code = f"import engine; assert engine.__file__.startswith({str(installed)!r}); import api.cli; "
    ran = subprocess.run(
        [
            sys.executable, "-P", "-c", code + "api.cli.main()",
            "simulate", "--days=1", "--viewers=5", f"--database={log}",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "decisions" in ran.stdout
