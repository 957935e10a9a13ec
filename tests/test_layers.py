"""The layers and the lock file hold for the whole repository, not only for what is listed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = {"api", "attribution", "engine", "experiments", "policies", "recsys"}
BESIDE = {"benchmarks", "tests"}
"""What is no part of the product and may import all of it."""


def settings() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)["tool"]
    return found


def packages() -> set[str]:
    return {file.parent.name for file in ROOT.glob("*/__init__.py")}


def test_every_top_level_package_is_known() -> None:
    assert packages() == PRODUCT | BESIDE


def test_every_package_of_the_product_stands_in_the_layers() -> None:
    linter = settings()["importlinter"]
    layers = next(c["layers"] for c in linter["contracts"] if c["type"] == "layers")
    listed = {name.strip() for layer in layers for name in layer.split("|")}
    assert listed >= PRODUCT | {"tests"}
    assert set(linter["root_packages"]) >= PRODUCT | {"tests"}


def test_the_wheel_holds_the_product_alone() -> None:
    wheel = settings()["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) == PRODUCT


def test_every_package_of_the_product_is_checked_by_type() -> None:
    assert set(settings()["mypy"]["packages"]) == PRODUCT | BESIDE


@pytest.mark.parametrize(("lock", "least"), [("requirements", 50), ("requirements-extras", 4)])
def test_a_lock_names_no_host_and_hashes_everything(lock: str, least: int) -> None:
    text = (ROOT / f"{lock}.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(
        r"^\s*--(extra-)?index-url|^\s*--find-links|^\s*-[if] ", text, re.MULTILINE
    )
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert len(requirements) >= least
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+==\S+", requirement), requirement[:80]
        assert "--hash=sha256:" in requirement, requirement[:80]


def test_the_extras_ask_for_what_is_locked() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = found["project"]["optional-dependencies"].values()
    extras = sorted(name for names in optional for name in names)
    assert extras == found["dependency-groups"]["extras"]
    locked = (ROOT / "requirements-extras.lock").read_text(encoding="utf-8")
    assert all(f"{name.partition('>')[0]}==" in locked for name in extras)
