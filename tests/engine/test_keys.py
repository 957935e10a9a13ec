"""Keys: what they allow, how they are found, and what is kept of them."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from engine.errors import RequestError, StoreError
from engine.keys import Key, Keyring, Scope, new_key
from engine.store import KeyStore


def made(name: str = "web", *scopes: Scope, id_: str = "k1", at: int = 1) -> tuple[Key, str]:
    return new_key(name, scopes or (Scope.DECIDE,), id_, at)


@pytest.fixture
def store(url: str) -> KeyStore:
    return KeyStore(url.replace("/log.db", "/deep/log.db"))


@pytest.fixture
def in_file(tmp_path: Path) -> KeyStore:
    """Keys in a file, beside a database that does not exist yet."""
    return KeyStore(f"sqlite:///{tmp_path}/deep/log.db")


def path_of(store: KeyStore) -> Path:
    """The file of keys that stand in one."""
    assert store.path is not None
    return store.path


def test_a_secret_has_256_random_bits_and_only_its_sha256_is_kept() -> None:
    (first, one), (_, other) = made(), made()
    assert one != other
    assert one.startswith("evh_")
    assert len(one.removeprefix("evh_")) == 43  # 32 bytes in base64url
    assert first.digest == sha256(one.encode()).digest()
    assert one not in repr(first)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "naïve", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="`name` is"):
        made(name)


def test_a_key_without_scope_is_refused() -> None:
    with pytest.raises(RequestError, match="decide, outcomes, items, reports, admin"):
        new_key("web", (), "k1", 1)


def test_a_key_allows_its_scopes_and_admin_allows_all() -> None:
    web, _ = made("web", Scope.DECIDE, Scope.OUTCOMES)
    assert [web.allows(scope) for scope in Scope] == [True, True, False, False, False]
    admin, _ = made("root", Scope.ADMIN)
    assert all(admin.allows(scope) for scope in Scope)


def test_a_keyring_finds_keys_in_force_by_their_secret_alone(store: KeyStore) -> None:
    (web, secret), (old, gone) = made(), made("old", id_="k2", at=2)
    store.add(web)
    store.add(old)
    assert store.revoke("k2", 3)
    ring = Keyring(store.all())
    assert len(ring) == 1
    assert ring.find(secret) == web
    for other in (gone, "", secret[:-1], secret + "A", web.id, web.digest.hex(), "\udcff"):
        assert ring.find(other) is None


def test_keys_are_read_back_as_stored_in_the_order_of_creation(store: KeyStore) -> None:
    second, _ = made("b", Scope.REPORTS, Scope.OUTCOMES, id_="k2", at=2)
    first, _ = made("a", id_="k1", at=1)
    store.add(second)
    store.add(first)
    assert store.all() == [first, second]


def test_a_key_is_revoked_once(store: KeyStore) -> None:
    assert not store.revoke("k1", 4)
    store.add(made()[0])
    assert not store.revoke("other", 4)
    assert store.revoke("k1", 5)
    assert not store.revoke("k1", 6)
    assert [key.revoked_at for key in store.all()] == [5]


def test_reading_makes_no_file_and_writing_makes_one_for_its_owner(in_file: KeyStore) -> None:
    assert in_file.all() == []
    assert not path_of(in_file).exists()
    in_file.add(made()[0])
    assert path_of(in_file).name == "log.db.keys"
    assert stat.S_IMODE(path_of(in_file).stat().st_mode) == 0o600


def test_no_secret_is_in_the_file(in_file: KeyStore) -> None:
    key, secret = made()
    in_file.add(key)
    assert secret.encode() not in path_of(in_file).read_bytes()
    assert secret.removeprefix("evh_").encode() not in path_of(in_file).read_bytes()


def test_a_file_of_something_else_is_a_store_error(in_file: KeyStore) -> None:
    path_of(in_file).parent.mkdir(parents=True)
    path_of(in_file).write_bytes(b"nonsense" * 200)
    with pytest.raises(StoreError, match=r"log\.db\.keys holds no keys"):
        in_file.all()
    with pytest.raises(StoreError, match=r"log\.db\.keys holds no keys"):
        in_file.add(made()[0])


def test_a_scope_of_a_later_version_is_a_store_error(in_file: KeyStore) -> None:
    in_file.add(made()[0])
    with closing(sqlite3.connect(path_of(in_file))) as connection, connection:
        connection.execute("UPDATE keys SET scopes = 'decide fly'")
    with pytest.raises(StoreError, match="ValueError"):
        in_file.all()


def test_an_address_that_is_none_is_a_store_error() -> None:
    with pytest.raises(StoreError):
        KeyStore("mysql://somewhere/else")
