"""The policies page: its example runs, and it names every kind with all its parameters."""

import doctest
from pathlib import Path

import pytest

from policies import POLICY_KINDS, describe_parameters, registry

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"


def test_the_pages_example_runs() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_registrys_example_runs() -> None:
    result = doctest.testmod(registry)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("kind", POLICY_KINDS)
def test_the_page_names_the_kind_and_its_parameters(kind: str) -> None:
    (line,) = [
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{kind}` |")
    ]
    for parameter in describe_parameters(kind):
        assert f"`{parameter.name}`" in line or "as `" in line
