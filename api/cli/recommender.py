"""``evenhand load-items``, ``load-interactions``, ``train-recs``, ``eval-recs``."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import err, errors_told, out, print_json, print_table, progress
from api.cli.options import DEFAULT_DATABASE, Database, Json
from attribution.wording import ends
from engine.errors import EngineError, NotFoundError
from engine.feeding import Loaded, feed_interactions, feed_items, file_interactions
from engine.ids import system_clock
from engine.log import UnitInteraction
from engine.revisions import Revisions
from engine.store import ModelStore, Store
from engine.workspace import EMBEDDED, Recommender, Workspace, load_workspace
from recsys.loading import InteractionColumns

MOST_SHOWN = 20


class Split(StrEnum):
    """What is held out."""

    PER_USER = "per-user"
    TIME = "time"


File = Annotated[Path, typer.Argument(help="CSV or Parquet.")]
OfWorkspace = Annotated[
    Path | None, typer.Option(help="Workspace of the items; default: the one that served last.")
]
User = Annotated[str, typer.Option(help="Column of the user's id.")]
Item = Annotated[str, typer.Option(help="Column of the item's id.")]
At = Annotated[str, typer.Option(help="Column of the time, RFC 3339 or microseconds since 1970.")]
Kind = Annotated[
    str | None, typer.Option(help="Column of what was done; without one every line is a view.")
]
Value = Annotated[str | None, typer.Option(help="Column of how much; without one 1.")]


def load_items(
    file: File,
    *,
    database: Database = DEFAULT_DATABASE,
    workspace: OfWorkspace = None,
    json: Json = False,
) -> None:
    """Tell a log of the items of a file; a running server is told over HTTP."""
    with errors_told(as_json=json), Store(database, writer="evenhand load-items") as store:
        items = _workspace(store, workspace).items
        with progress("loading items") as advance:
            loaded = feed_items(store, items, file, system_clock(), advance)
        store.checkpoint()
    _tell(loaded, "items", "unchanged", as_json=json)


def load_interactions(
    file: File,
    *,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = "at",
    kind: Kind = None,
    value: Value = None,
    database: Database = DEFAULT_DATABASE,
    json: Json = False,
) -> None:
    """Tell a log what users did with items; a running server is told by outcomes."""
    columns = InteractionColumns(user, item, at, kind, value)
    with errors_told(as_json=json), Store(database, writer="evenhand load-interactions") as store:
        with progress("loading interactions") as advance:
            loaded = feed_interactions(store, file, columns, system_clock(), advance)
        store.checkpoint()
    _tell(loaded, "interactions", "known", as_json=json)


def train_recs(
    *,
    recommender: Annotated[
        str, typer.Option(help="An embedded recommender of the workspace.")
    ] = EMBEDDED,
    interactions: Annotated[
        Path | None, typer.Option(help="CSV or Parquet with more interactions.")
    ] = None,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = "at",
    kind: Kind = None,
    value: Value = None,
    database: Database = DEFAULT_DATABASE,
    workspace: OfWorkspace = None,
    json: Json = False,
) -> None:
    """Train a recommender on the log, also while a server runs, which follows within seconds."""
    with errors_told(as_json=json):
        from engine.training import (  # noqa: PLC0415  keeps other commands light
            train_recommender,
            train_scorer,
        )

        now = system_clock()
        more = _more(interactions, InteractionColumns(user, item, at, kind, value), now)
        with Store(database) as store:
            found = _workspace(store, workspace)
            with progress("training") as advance:
                trained = train_recommender(
                    store,
                    ModelStore(database),
                    found,
                    _recommender(found, recommender),
                    now_us=now,
                    more=more,
                    progress=lambda _stage, _share: advance(1),
                )
                scored = [
                    scorer
                    for slate in found.slates.values()
                    if slate.recommender == recommender
                    and (
                        scorer := train_scorer(
                            store, ModelStore(database), slate, Revisions(store), now_us=now
                        )
                    )
                ]
    if json:
        print_json(asdict(trained) | {"scorers": scored})
        return
    out.print(
        f"{recommender}: {trained.kind} of {trained.interactions:,} interactions of "
        f"{trained.units:,} units with {trained.items:,} of {trained.catalogue:,} items; "
        f"model {trained.digest[:12]}",
        highlight=False,
    )
    for scorer in scored:
        out.print(
            f"slate {scorer.slate}: {scorer.objective} of {scorer.positions:,} positions; scorer "
            f"{scorer.digest[:12]}",
            highlight=False,
        )


def eval_recs(
    *,
    recommender: Annotated[
        list[str] | None,
        typer.Option(help="An embedded recommender; may be repeated. Default: all of them."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="Hold out the end of each user's choices, or of the time.")
    ] = Split.PER_USER,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="How much is held out.")] = 0.2,
    k: Annotated[int, typer.Option(min=1, max=1_000, help="How many items are judged.")] = 10,
    interactions: Annotated[
        Path | None, typer.Option(help="CSV or Parquet with more interactions.")
    ] = None,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = "at",
    kind: Kind = None,
    value: Value = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    database: Database = DEFAULT_DATABASE,
    workspace: OfWorkspace = None,
    json: Json = False,
) -> None:
    """Judge recommenders on what users chose later, beside what is most popular."""
    with errors_told(as_json=json):
        from engine.training import evaluate_recommenders  # noqa: PLC0415  as of train-recs

        columns = InteractionColumns(user, item, at, kind, value)
        more = _more(interactions, columns, system_clock())
        with Store(database) as store:
            found = _workspace(store, workspace)
            inner = [id_ for id_, one in found.recommenders.items() if one.url is None]
            with progress("evaluating"):
                results = evaluate_recommenders(
                    store,
                    found,
                    [_recommender(found, name) for name in recommender or inner],
                    split="per_user" if split is Split.PER_USER else "time",
                    share=share,
                    k=k,
                    more=more,
                    seed=seed,
                )
    if json:
        print_json({"results": results})
        return
    print_table(
        f"{results[0].users:,} users, {results[0].k} items, held out {split.value}",
        ("recommender", "metric", "value", "95 %"),
        [
            (result.name, figure.metric, figure.value, ends(figure.low, figure.high))
            for result in results
            for figure in result.figures
        ],
    )


def _more(file: Path | None, columns: InteractionColumns, now_us: int) -> list[UnitInteraction]:
    """The interactions of a file, if there is one; lines that are none are told."""
    if file is None:
        return []
    found, faults = file_interactions(file, columns, now_us)
    _tell_faults([str(fault) for fault in faults])
    return found


def _recommender(workspace: Workspace, name: str) -> Recommender:
    known = workspace.recommenders
    if name not in known:
        listed = ", ".join(f'"{id_}"' for id_ in known)
        said = f'is "{name}", which is not declared; known: {listed}'
        raise NotFoundError("recommender", said)
    return known[name]


def _workspace(store: Store, folder: Path | None) -> Workspace:
    found = load_workspace(folder) if folder else Revisions(store).latest()
    if found is None:
        raise EngineError("the database holds no workspace yet; name one with --workspace")
    return found


def _tell(loaded: Loaded, what: str, known: str, *, as_json: bool) -> None:
    faults = [str(fault) for fault in loaded.faults]
    if as_json:
        print_json({"stored": loaded.stored, known: loaded.known, "faults": faults})
    else:
        out.print(f"{loaded.stored:,} {what} stored, {loaded.known:,} {known}", highlight=False)
        _tell_faults(faults)
    if faults:
        raise typer.Exit(1)


def _tell_faults(faults: list[str]) -> None:
    for fault in faults[:MOST_SHOWN]:
        err.print(f"left out: {fault}", highlight=False, markup=False, soft_wrap=True)
    if len(faults) > MOST_SHOWN:
        err.print(f"… and {len(faults) - MOST_SHOWN:,} lines more", highlight=False)
