"""The application: routes, errors as problems, metrics, and the engine for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.access import SECURITY_HEADERS, Access, is_open, scope_of
from api.decide import DECIDE
from api.gate import Gate
from api.items import ITEMS
from api.items import router as items_router
from api.outcomes import EXPOSURES, OUTCOMES
from api.problems import MEDIA_TYPE, FieldError, failed, problem, shown
from api.raw import RawRoute
from api.recommend import RECOMMEND
from api.recommenders import HttpRecommenders
from api.reports import Reports
from api.routes import problems, router
from api.telemetry import Telemetry
from engine.errors import EngineError
from engine.ids import RandomIds
from engine.revisions import Revisions, check_succession
from engine.service import Engine, Journal
from engine.store import KeyStore, Store
from engine.version import __version__
from engine.workspace import load_workspace

_ROUTERS = (router, items_router)
_RAW: Mapping[str, RawRoute[Any]] = {
    route.path: route for route in (DECIDE, RECOMMEND, EXPOSURES, OUTCOMES, ITEMS)
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is started with.

    ``learn_every_s`` of None never learns. Without ``auth`` whoever reaches the port may ask; with
    it ``rate`` limits the requests per second of each key, None not at all.
    """

    workspace: Path
    database: str
    learn_every_s: float | None = 5.0
    auth: bool = True
    rate: float | None = None


def create_app(settings: Settings, journal: Journal) -> FastAPI:
    """The application for one workspace and one database.

    Raises
    ------
    ConfigurationError
        If the workspace has faults.
    StoreError
        If the database cannot be written, or the keys cannot be read.
    """
    telemetry = Telemetry()
    workspace = load_workspace(settings.workspace)
    store = Store(settings.database, writer="evenhand serve")
    try:
        check_succession(Revisions(store), workspace)
        keys = KeyStore(settings.database)
        access = Access(keys, settings.rate, journal) if settings.auth else None
    except BaseException:
        store.close()
        raise

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(
            store,
            workspace,
            journal,
            folder=settings.workspace,
            new_id=RandomIds(),
            observe_commit=telemetry.committed,
            external=HttpRecommenders(os.environ),
        )
        app.state.engine = engine
        reloading = _reload_on_signal(engine)
        following = asyncio.create_task(access.follow()) if access else None
        if settings.learn_every_s is not None:
            engine.learn_every(settings.learn_every_s)
        journal.info("serving", revision=engine.workspace.revision)
        try:
            yield
        finally:
            for task in reloading:
                task.cancel()
            if following:
                following.cancel()
            await engine.close()
            journal.info("stopped")

    app = _Application(
        title="Evenhand",
        version=__version__,
        summary="Decide, log, learn, prove.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.telemetry = telemetry
    app.state.reports = Reports(settings.database)
    for of in _ROUTERS:
        app.include_router(of)
    _answer_errors(app, journal)
    app.gate = Gate(app.routed, _RAW, lambda: app.state.engine, telemetry, journal, access)
    app.openapi = lambda: _openapi(app, with_keys=settings.auth)  # type: ignore[method-assign]  # FastAPI's documented way to extend its document
    return app


class _Application(FastAPI):
    """FastAPI's application, entered through the gate."""

    gate: Gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gate(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the routes, behind the gate."""
        await super().__call__(scope, receive, send)


def _reload_on_signal(engine: Engine) -> set[asyncio.Task[bool]]:
    """Reload the workspace on SIGHUP; the tasks that are at it."""
    tasks: set[asyncio.Task[bool]] = set()

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(engine.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Only the main thread of a POSIX process has signals; a test's application runs elsewhere.
    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)
    return tasks


def _answer_errors(app: FastAPI, journal: Journal) -> None:
    @app.exception_handler(EngineError)
    @app.exception_handler(Exception)
    async def engine_or_unforeseen(_: Request, error: Exception) -> Response:
        return failed(error, journal)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        if faults[0]["type"] == "json_invalid":
            return _not_json(f"{faults[0]['ctx']['error']} (byte {faults[0]['loc'][-1]})")
        errors = [FieldError(_dotted(e["loc"]), _message(e)) for e in faults]
        return problem(400, "the request is not what this route takes", errors)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            # FastAPI says no more of a body that is not UTF-8 or nested beyond reading.
            return _not_json("cannot be read; give JSON in UTF-8, not nested deeply")
        if error.status_code >= 500:
            journal.warning("failed", error=type(error).__name__, message=str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed(request)
        return problem(error.status_code, str(error.detail), headers=headers)


def _allowed(request: Request) -> str:
    """The methods of all routes at a path: Starlette names those of the first one alone."""
    methods = {
        method
        for of in _ROUTERS
        for route in of.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(methods))


def _not_json(message: str) -> Response:
    return problem(400, "the body is not JSON", [FieldError("", message)])


def _dotted(place: tuple[int | str, ...]) -> str:
    """Pydantic's location as a path into the body or query: ``target[0]``."""
    text = ""
    for part in place[1:]:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _message(error: dict[str, Any]) -> str:
    """What is wrong with a value and how to mend it, the value named."""
    said = str(error["msg"])
    repair = _REPAIRS.get(error["type"], said[:1].lower() + said[1:])
    if error["type"] in {"missing", "extra_forbidden"}:
        return repair
    return f"is {shown(error['input'])}; {repair}"


_REPAIRS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a known field; remove it, or mend its name",
    "string_type": "give a string",
    "string_too_short": "give at least one character",
    "model_attributes_type": "give an object",
}


def _openapi(app: FastAPI, *, with_keys: bool) -> dict[str, Any]:
    """FastAPI's document with the raw routes added, and without the 422 that never comes."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        components = document.setdefault("components", {}).setdefault("schemas", {})
        for route in _RAW.values():
            document["paths"][route.path], schemas = route.openapi()
            components.update(schemas)
        for name in ("HTTPValidationError", "ValidationError"):
            components.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"] |= problems(408, 431)
        if with_keys:
            _describe_keys(document)
        _describe_headers(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_keys(document: dict[str, Any]) -> None:
    """Add what each path asks of a key, and how it refuses, to an OpenAPI document."""
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key, made by `evenhand keys create`, with the scopes named here.",
        }
    }
    for name, path in document["paths"].items():
        for operation in path.values():
            if is_open(name):
                operation["security"] = []
                continue
            scope = scope_of(name)
            operation["security"] = [{"key": [scope.value] if scope else []}]
            operation["responses"] |= problems(401, 429) | (problems(403) if scope else {})


_ALWAYS = {
    name: {"required": True, "schema": {"type": "string", "const": value}}
    for name, value in SECURITY_HEADERS.items()
}
_RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
_OF_STATUS = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}


def _describe_headers(document: dict[str, Any]) -> None:
    """Add to every answer of an OpenAPI document the headers that it has."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                # What is not ready says so without a problem, and not for how long.
                more = _OF_STATUS.get(str(status), {}) if _is_problem(response) else {}
                response["headers"] = _ALWAYS | more


def _is_problem(response: dict[str, Any]) -> bool:
    return MEDIA_TYPE in response["content"]
