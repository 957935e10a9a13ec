"""Every example in the documentation and the docstrings of this package runs as shown."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import attribution

DOCS = Path(__file__).parents[2] / "docs"
MODULES = sorted(path.stem for path in Path(attribution.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("page", ["lift.md", "evaluation.md", "your-log.md"])
def test_the_page_shows_what_comes_out(page: str) -> None:
    result = doctest.testfile(str(DOCS / page), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_come_out_as_shown(module: str) -> None:
    assert doctest.testmod(import_module(f"attribution.{module}")).failed == 0


def test_every_public_name_is_there_and_documented() -> None:
    for name in attribution.__all__:
        assert getattr(attribution, name).__doc__, name
    assert dir(attribution) == sorted(attribution.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        attribution.nothing  # noqa: B018  # reading it is the test
