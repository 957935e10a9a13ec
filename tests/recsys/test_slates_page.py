"""The page of slates: its examples run, and it names every rule, feature and setting."""

from __future__ import annotations

import doctest
import inspect
import re
from types import ModuleType

import msgspec
import pytest

from recsys import features, plan, rules
from recsys.call import SLATE_KINDS
from tests.console import ROOT

PAGE = ROOT / "docs" / "slates.md"


def named() -> set[str]:
    """Every word that the page sets as code."""
    text = re.sub(r"^```.*?^```", "", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", text)
    return {word for span in spans for word in re.findall(r"\w+", span)}


def test_the_pages_examples_run() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 20
    assert result.failed == 0


@pytest.mark.parametrize("module", [rules, features, plan], ids=str)
def test_every_public_class_has_an_entry(module: ModuleType) -> None:
    classes = {
        name
        for name, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert len(classes) >= 5
    assert classes - named() - {"Rule", "Feature"} == set()


def test_every_setting_of_composition_and_every_kind_has_an_entry() -> None:
    structs = (plan.Limit, plan.Diversity, plan.Calibration, plan.Exploration, plan.Pin)
    fields = {field.name for struct in structs for field in msgspec.structs.fields(struct)}
    assert fields - named() - {"position"} == set()
    assert set(SLATE_KINDS) <= named()
