"""``evenhand keys``: who may ask a server, also while it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.console import err, errors_told, out, print_json, print_table
from api.cli.options import DEFAULT_DATABASE, Database, Json
from engine.errors import NotFoundError
from engine.ids import random_uuid7, rfc3339, system_clock
from engine.keys import Key, Scope, new_key
from engine.store import KeyStore

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command("create")
def create(
    *,
    name: Annotated[str, typer.Option(help="What the key is for, as checkout-service.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be repeated.")],
    database: Database = DEFAULT_DATABASE,
    json: Json = False,
) -> None:
    """Create a key and print its secret, once; a running server knows it within seconds."""
    with errors_told(as_json=json):
        now_us = system_clock()
        key, secret = new_key(name, scope, random_uuid7(now_us), now_us)
        KeyStore(database).add(key)
    if json:
        print_json(_plain(key) | {"secret": secret})
        return
    scopes = ", ".join(sorted(key.scopes))
    said = f'key {key.id} "{key.name}" ({scopes}); its secret, which is shown only now:'
    err.print(said, highlight=False, soft_wrap=True, markup=False)
    # Alone on standard output, unwrapped, so that a script can take it.
    typer.echo(secret)


@app.command("list")
def list_(*, database: Database = DEFAULT_DATABASE, json: Json = False) -> None:
    """List the keys, revoked ones too; secrets are not kept."""
    with errors_told(as_json=json):
        rows = [_plain(key) for key in KeyStore(database).all()]
    if json:
        print_json({"keys": rows})
        return
    print_table(
        "Keys",
        ("id", "name", "scopes", "created", "revoked"),
        [
            (r["id"], r["name"], ", ".join(r["scopes"]), r["created_at"], r["revoked_at"])
            for r in rows
        ],
    )


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as listed.")],
    *,
    database: Database = DEFAULT_DATABASE,
    json: Json = False,
) -> None:
    """Put a key out of force for good; a running server refuses it within seconds."""
    with errors_told(as_json=json):
        if not KeyStore(database).revoke(key_id, system_clock()):
            said = f'is "{key_id[:64]}", no key in force; `keys list` shows them'
            raise NotFoundError("KEY_ID", said)
    if json:
        print_json({"id": key_id, "revoked": True})
    else:
        out.print(f"revoked {key_id}", highlight=False, markup=False)


def _plain(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": rfc3339(key.created_at),
        "revoked_at": None if key.revoked_at is None else rfc3339(key.revoked_at),
    }
