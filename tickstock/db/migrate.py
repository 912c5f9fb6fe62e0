"""Installing and upgrading the schema from the files in `sql/`.

`sql/migrations/` runs once, in order, each file frozen by its hash once released. `sql/objects/` is
rerunnable (`create or replace`) and runs after them, and whenever any of it has changed. All of it is one
transaction under a lock: twenty migrations at once end like one, a failed one leaves the database as it
was.
"""

import logging
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

import tickstock
from tickstock import sqlfiles
from tickstock.db.connection import connect, fetch_value, first_line, where, without_time_limits
from tickstock.errors import TickstockError
from tickstock.sqlfiles import SqlFile

log = logging.getLogger(__name__)

LOCK = "select pg_advisory_lock(hashtext('tickstock.migrate'))"


class Migrated(NamedTuple):
    engine: str
    applied: list[str]
    """Names of the files that were run; "objects" stands for all rerunnable ones."""


def migrate(url: str, *, use_timescaledb: bool = True) -> Migrated:
    """Bring the schema of this database up to date; does nothing when it already is.

    Creates the extension timescaledb where the server offers it, unless told not to.
    Raises TickstockError when a released migration was changed, or the server refuses one, and for a
    new database that can't hold every text.
    """
    with connect(url, program="migrate") as conn:
        without_time_limits(conn)
        conn.execute(LOCK)
        conn.execute("set client_min_messages = warning")
        try:
            if not _has_schema(conn):
                _check_encoding(conn)
                if use_timescaledb:
                    _create_extension(conn)
            with conn.transaction():
                _become_owner(conn)
                return _apply(conn)
        except psycopg.errors.InsufficientPrivilege as error:
            raise TickstockError(
                f"not allowed to install the schema on {where(url)}: {first_line(error)}. "
                "Migrate as the owner of the database."
            ) from error
        except psycopg.errors.DependentObjectsStillExist as error:
            which = "; ".join((error.diag.message_detail or first_line(error)).splitlines())
            raise TickstockError(
                f"the schema on {where(url)} can't be upgraded, since what is not tickstock's depends on it: "
                f"{which}. Keep its definition (pg_dump --schema-only), drop it, migrate, and make it anew."
            ) from error


def _become_owner(conn: Connection[TupleRow]) -> None:
    """What an administrator adds is its owner's: some functions have their owner's rights."""
    owner = fetch_value(
        conn,
        "select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner"
        " where n.nspname = 'tickstock' and r.rolname <> current_user",
    )
    if owner is not None:
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(owner)))


def _apply(conn: Connection[TupleRow]) -> Migrated:
    _run(conn, sqlfiles.read("history.sql"))
    known: dict[str, str] = dict(
        conn.execute("select name, sha256 from tickstock.migrations").fetchall()
    )
    engine = _engine(conn)
    applied: list[str] = []
    for file in sqlfiles.files("migrations", engine):
        if file.name not in known:
            if not applied:
                _run(conn, sqlfiles.read("before-migrations.sql"))
                known.pop("objects", None)
            log.info("applying %s", file.name)
            _run(conn, file)
            _record(conn, file.name, file.sha256, engine)
            applied.append(file.name)
        elif known[file.name] != file.sha256:
            raise TickstockError(
                f"migration {file.name} differs from what this database was given: a released "
                "migration must not change. Reinstall tickstock, or restore the file."
            )
    objects = sqlfiles.files("objects", engine)
    if (sha256 := sqlfiles.combined_sha256(objects)) != known.get("objects"):
        log.info("renewing functions and views")
        for file in objects:
            _run(conn, file)
        _record(conn, "objects", sha256, engine)
        applied.append("objects")
    else:
        # As the objects do: a restored dump brings no settings, and the group roles may be newer.
        conn.execute("select tickstock.apply_settings()")
        conn.execute("select tickstock.apply_rights()")
    return Migrated(engine, applied)


def _has_schema(conn: Connection[TupleRow]) -> bool:
    return fetch_value(conn, "select to_regclass('tickstock.migrations')") is not None


def _engine(conn: Connection[TupleRow]) -> str:
    """The engine at the first migration, or the present one: a schema keeps its kind for good."""
    if engine := fetch_value(conn, "select engine from tickstock.migrations limit 1"):
        return str(engine)
    if not fetch_value(conn, "select count(*) from pg_extension where extname = 'timescaledb'"):
        return "postgres"
    license_ = fetch_value(conn, "select current_setting('timescaledb.license', true)")
    return "community" if license_ == "timescale" else "apache"


def _check_encoding(conn: Connection[TupleRow]) -> None:
    """A cluster made under the locale C has SQL_ASCII, whose texts nobody can tell from bytes."""
    encoding = fetch_value(conn, "select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise TickstockError(
            f"the database at {where(conn.info.dsn)} has the encoding {encoding}, and tickstock needs "
            "UTF8: make a new one with `createdb --template=template0 --encoding=UTF8 NAME`"
        )


def _create_extension(conn: Connection[TupleRow]) -> None:
    offered = conn.execute(
        "select installed_version from pg_available_extensions where name = 'timescaledb'"
    ).fetchone()
    if offered is None or offered[0] is not None:
        return
    url = conn.info.dsn
    try:
        # A connection of its own: a server that has not preloaded the library cuts it.
        with psycopg.connect(url, password=conn.info.password or None, autocommit=True) as own:
            own.execute("set client_min_messages = error")
            own.execute("create extension if not exists timescaledb schema public")
    except psycopg.Error as error:
        raise TickstockError(
            f"the server at {where(url)} has TimescaleDB, but it can't be switched on: "
            f"{first_line(error)}. Let an administrator preload it and run `create extension "
            "timescaledb`, or do without it: `tickstock db migrate --without-timescaledb`."
        ) from error


def _run(conn: Connection[TupleRow], file: SqlFile) -> None:
    conn.execute(file.text)  # our own files, never a user's input


def _record(conn: Connection[TupleRow], name: str, sha256: str, engine: str) -> None:
    conn.execute(
        "insert into tickstock.migrations (name, sha256, engine, version) values (%s, %s, %s, %s)"
        " on conflict (name) do update set sha256 = excluded.sha256, version = excluded.version,"
        " applied_at = excluded.applied_at",
        (name, sha256, engine, tickstock.__version__),
    )
