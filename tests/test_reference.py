"""Every route, key, command, option and public name has its entry in the docs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from pydantic import BaseModel

import attribution
import experiments
import policies
import recsys
from api.cli.main import app
from engine import importing
from engine.workspace import schema
from tests.api.running import InProcess
from tests.api.workspaces import write_workspace
from tests.console import ROOT

DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^\| (.*?) \| (.*) \|$", re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def code(*names: str) -> str:
    """What pages set as code."""
    text = "\n".join(page(name) for name in names)
    spans = re.findall(r"`([^`]+)`", _FENCE.sub("", text))
    return "\n".join([*_FENCE.findall(text), *spans])


def missing(names: set[str], text: str) -> list[str]:
    return sorted(name for name in names if not re.search(rf"\b{re.escape(name)}\b", text))


def test_every_route_has_an_entry(tmp_path: Path) -> None:
    folder = write_workspace(tmp_path / "workspace")
    with InProcess(folder, f"sqlite:///{tmp_path}/log.db") as served:
        document = served.get("/openapi.json").json()
    routes = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert len(routes) >= 10
    assert set(re.findall(r"^\| `([A-Z]+ /.*?)` \|", page("http.md"), re.MULTILINE)) == routes


def keys(module: ModuleType) -> set[str]:
    """The keys of all models that a module declares."""
    models = (model for _, model in inspect.getmembers(module, inspect.isclass))
    return {
        key
        for model in models
        if issubclass(model, BaseModel) and model.__module__ == module.__name__
        for key in model.model_fields
    }


@pytest.mark.parametrize(
    ("module", "name"), [(schema, "workspace.md"), (importing, "import.md")], ids=str
)
def test_every_key_has_an_entry(module: ModuleType, name: str) -> None:
    assert len(keys(module)) >= 10
    assert missing(keys(module), code(name)) == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (attribution, ("lift.md", "evaluation.md")),
        (policies, ("policies.md",)),
        (experiments, ("experiments.md",)),
        (recsys, ("recommender.md", "slates.md", "recsys.md")),
    ],
    ids=str,
)
def test_every_public_name_has_an_entry(module: ModuleType, names: tuple[str, ...]) -> None:
    assert missing(set(module.__all__), code(*names)) == []


# The command line ---------------------------------------------------------------------------------

GROUP = typer.main.get_group(app)
COMMANDS = {
    f"{name} {inner}" if inner else name: command
    for name, outer in GROUP.commands.items()
    for inner, command in getattr(outer, "commands", {"": outer}).items()
}


def sections() -> Iterator[tuple[str, str]]:
    """Each command that docs/cli.md describes, and what is said of it."""
    for section in page("cli.md").split("\n## evenhand ")[1:]:
        name, _, text = section.partition("\n")
        yield name, text


def test_every_command_has_a_section() -> None:
    assert [name for name, _ in sections()] == list(COMMANDS)
    assert "`evenhand --version`" in page("cli.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_row_with_its_default(name: str) -> None:
    rows = dict(_CELL.findall(dict(sections())[name]))
    described = {re.sub(r"[`\[\]….]", "", key).split()[0]: row for key, row in rows.items()}
    described.pop("option")
    described.pop("---", None)
    parameters = {
        parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.opts[0].upper():
        parameter
        for parameter in COMMANDS[name].params
    }  # fmt: skip
    assert list(described) == list(parameters)
    for option, parameter in parameters.items():
        default = described[option].rpartition("| ")[2]
        if parameter.required:
            assert default == "required", option
        elif isinstance(parameter.default, str | int | float) and parameter.default is not False:
            assert default == f"`{parameter.default}`", option
        else:
            assert default not in {"", "required"}, option
