"""Where the database comes from: the setting, libpq's own variables, or a server of our own."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tickstock.db.migrate import migrate
from tickstock.embedded.installations import Installation, choose_installation
from tickstock.embedded.server import EmbeddedServer, dsn_for

log = logging.getLogger(__name__)

LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGPORT", "PGUSER")
DBNAME = "tickstock"
DEMO_DBNAME = "tickstock_demo"


@dataclass(frozen=True)
class Database:
    """A database one may connect to, for as long as the source is held open."""

    url: str
    """A libpq connection string."""
    installation: Installation | None = None
    """The PostgreSQL behind an embedded server; None where the database was given by settings."""
    applied: Sequence[str] = ()
    """What was applied to an embedded one as it was opened, as in Migrated."""


@contextmanager
def database(url: str | None, *, dbname: str = DBNAME, fresh: bool = False) -> Iterator[Database]:
    """The database by its URL, by libpq's PG variables, or an embedded one, migrated and ready.

    The embedded server runs while somebody holds it open; its data stays. `dbname` and `fresh`
    (empty it first) are about a database of the embedded server. Raises DatabaseUnavailableError
    when no PostgreSQL is to be had.
    """
    if url:
        yield Database(url)
    elif any(os.environ.get(variable) for variable in LIBPQ_VARIABLES):
        yield Database("")
    else:
        installation = choose_installation()
        with EmbeddedServer(installation, "default").attached() as dsn:
            log.info("embedded %s", installation)
            _ensure_database(dsn, dbname, fresh=fresh)
            own = dsn_for(dsn, dbname)
            yield Database(own, installation, migrate(own).applied)


def _ensure_database(dsn: str, dbname: str, *, fresh: bool) -> None:
    name = sql.Identifier(dbname)
    with psycopg.connect(dsn, autocommit=True) as conn:
        # Twenty may start at once: CREATE DATABASE has no IF NOT EXISTS.
        conn.execute("select pg_advisory_lock(hashtext('tickstock.create'))")
        if fresh:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        found = conn.execute("select from pg_database where datname = %s", (dbname,)).fetchone()
        if found is None:
            conn.execute(sql.SQL("create database {}").format(name))
