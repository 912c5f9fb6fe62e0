"""Connections to the database, with failures that say what to do."""

import re

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from tickstock import sqlfiles
from tickstock.errors import DatabaseUnavailableError, SchemaMissingError

CONNECT_TIMEOUT = 10
"""Seconds, unless the connection string says otherwise."""


def connect(url: str, *, program: str, autocommit: bool = True) -> Connection[TupleRow]:
    """Connect, speaking UTC. `program` shows in pg_stat_activity.

    Raises DatabaseUnavailableError, which names the place (never the password) and the remedy.
    """
    try:
        return psycopg.connect(
            url,
            autocommit=autocommit,
            **{
                "application_name": f"tickstock {program}",
                "connect_timeout": conninfo_to_dict(url).get("connect_timeout", CONNECT_TIMEOUT),
            },
            options=f"{conninfo_to_dict(url).get('options') or ''} -c timezone=UTC",
        )
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailableError(
            f"the database URL can't be read ({first_line(error)}); "
            "expected something like postgresql://user@host:5432/dbname"
        ) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"no database at {where(url)}: {first_line(error)}. Is the server running, and is "
            "--database-url (TICKSTOCK_DATABASE_URL) right? Without one, tickstock starts its own."
        ) from error


def where(url: str) -> str:
    """Host, port and database of a connection string, without user and password."""
    parts = conninfo_to_dict(url)
    host = parts.get("host") or parts.get("hostaddr") or "the local socket or PGHOST"
    port = f":{parts['port']}" if parts.get("port") else ""
    dbname = f", database {parts['dbname']}" if parts.get("dbname") else ""
    return f"{host}{port}{dbname}"


def first_line(error: BaseException) -> str:
    """The gist of libpq's often repetitive, many-lined message."""
    text = str(error).strip()
    reason = re.search(r"(?:FATAL|ERROR):\s*(.+)|failed: (.+)|: (could not .+)", text)
    line = next((g for g in reason.groups() if g), text) if reason else text
    return line.splitlines()[0].rstrip(".") if line else type(error).__name__


def require_schema(conn: Connection[TupleRow]) -> None:
    """Raise SchemaMissingError unless this database holds the schema of this tickstock."""
    row = conn.execute("select to_regclass('tickstock.migrations')").fetchone()
    missing = "the database has no tickstock schema" if row is None or row[0] is None else None
    if missing is None:
        missing = _outdated(conn)
    if missing:
        raise SchemaMissingError(f"{missing}: run `tickstock db migrate` on {where(conn.info.dsn)}")


def _outdated(conn: Connection[TupleRow]) -> str | None:
    applied = conn.execute("select name, engine from tickstock.migrations").fetchall()
    if not applied:
        return "the database has no tickstock schema"
    names = {name for name, _ in applied}
    engine = str(applied[0][1])
    pending = [f.name for f in sqlfiles.files("migrations", engine) if f.name not in names]
    return f"the schema is older than this tickstock (missing: {', '.join(pending)})" if pending else None
