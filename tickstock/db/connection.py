"""Connections to the database, with failures that say what to do."""

import os
import re
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from tickstock import sqlfiles
from tickstock.errors import DatabaseUnavailableError, SchemaMissingError, TickstockError

CONNECT_TIMEOUT = 10
"""Seconds, unless the connection string says otherwise."""
VANISHED = {
    "tcp_user_timeout": 60_000,  # milliseconds, for what was sent and is not acknowledged
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""A machine that is gone without a word is noticed within a minute, for which a kernel by itself takes from a
quarter of an hour to two hours. A server that is slow acknowledges, and is waited for."""
SETTINGS = """
select set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
  set_config('intervalstyle', 'postgres', false), set_config('jit', 'off', false),
  set_config('client_encoding', 'UTF8', false),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('idle_session_timeout', '0', false),
  set_config('tcp_user_timeout', '60000', false), set_config('tcp_keepalives_idle', '30', false),
  set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false),
  set_config('search_path', concat_ws(', ', 'public', nullif(current_setting('search_path'), '')), false)
"""
"""By a statement: poolers such as pgbouncer refuse what comes as startup options. A database or role may have
been given others. psycopg reads times and intervals in these styles alone; and who waits for a lock must see
what its holder has done, which is so in read committed alone. Sessions that wait, for a bar or for a program
to end, hold locks meanwhile: they are not idle. And a machine of ours that is gone is to be noticed by the
server as soon as the other way round: what its sessions have locked would stay so for two hours. A schema
that comes before public, such as that of the user's name, would get our tables, and what is named like them
would hide them."""
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the certificate authorities that they trust: Debian, Red Hat, SUSE, Alpine and macOS."""


def connect(url: str, *, program: str, autocommit: bool = True) -> Connection[TupleRow]:
    """Connect, speaking UTC. `program` shows in pg_stat_activity.

    Raises DatabaseUnavailableError, which names the place (never the password) and the remedy.
    """
    given = parse(url)
    safety = tls(given)
    try:
        conn = psycopg.connect(
            make_conninfo(url, **{**VANISHED, **given, **safety}),
            autocommit=True,
            application_name=f"tickstock {program}",
            connect_timeout=int(given.get("connect_timeout") or CONNECT_TIMEOUT),
        )
        conn.execute(SETTINGS)
        conn.autocommit = autocommit
        return conn
    except psycopg.OperationalError as error:
        if safety and re.search("SSL|certificate", str(error)):
            raise DatabaseUnavailableError(
                f"no safe connection to the database at {where(url)}: {first_line(error)}. To a server "
                "on another machine it is encrypted, and the server's certificate verified: give the "
                "CA that signed it (sslrootcert=FILE in the URL, or PGSSLROOTCERT), or say what is to "
                "be done instead (sslmode=require: any certificate; disable: no encryption)"
            ) from error
        raise DatabaseUnavailableError(
            f"no database at {where(url)}: {first_line(error)}. Is the server running, and is "
            "--database-url (TICKSTOCK_DATABASE_URL) right? Without one, tickstock starts its own."
        ) from error


def tls(given: dict[str, Any]) -> dict[str, str]:
    """What to add to a connection string's parameters: a server elsewhere must prove who it is.

    libpq by itself encrypts only if the server likes to, and asks for no proof. What the string or
    libpq's variables say of sslmode stands; a service file (PGSERVICE) speaks for itself.
    """

    def said(parameter: str) -> str:
        return str(given.get(parameter) or os.environ.get(f"PG{parameter.upper()}") or "")

    hosts = (said("host") or said("hostaddr")).split(",")
    if said("sslmode") or said("service") or all(map(is_local, hosts)):
        return {}
    if said("sslrootcert") or Path("~/.postgresql/root.crt").expanduser().exists():
        return {"sslmode": "verify-full"}
    return {"sslmode": "verify-full", "sslrootcert": _authorities()}


def is_local(host: str) -> bool:
    """Whether this is a Unix socket, or this machine by its loopback address."""
    try:
        return not host or host[0] in "/@" or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _authorities() -> str:
    """The file of the certificate authorities that this system trusts."""
    told = ssl.get_default_verify_paths().cafile
    # psycopg's wheel brings a libpq that may look for them where its builder had them.
    return next((file for file in (told, *AUTHORITIES) if file and Path(file).is_file()), "system")


def parse(url: str) -> dict[str, Any]:
    """The parameters that a connection string gives.

    Raises DatabaseUnavailableError, which quotes nothing of it.
    """
    try:
        given = conninfo_to_dict(url)
        if _cuts_a_password(url):
            raise psycopg.ProgrammingError("a raw / or @ in user or password")
        if not str(given.get("connect_timeout") or CONNECT_TIMEOUT).isdecimal():
            raise psycopg.ProgrammingError("connect_timeout is not a number of seconds")
    except psycopg.ProgrammingError as error:
        # What libpq quotes may be the whole URL, or the password in it.
        gist = re.sub('".*"', '"…"', str(error), flags=re.DOTALL).strip()
        raise DatabaseUnavailableError(
            f"the database URL can't be read ({gist}); expected something like "
            "postgresql://user@host:5432/dbname, with special characters percent-encoded"
        ) from None
    return given


def _cuts_a_password(url: str) -> bool:
    """A raw / or @ in a password makes libpq take the rest of it for a host or a database."""
    if not url.startswith(("postgresql://", "postgres://")):
        return False
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in path


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


def fetch_value(conn: Connection[TupleRow], query: LiteralString, *params: object) -> Any:
    """The first column of the first row; None where there is no row."""
    row = conn.execute(query, params).fetchone()
    return row[0] if row else None


def without_time_limits(conn: Connection[TupleRow]) -> None:
    """For work that takes as long as it takes: the server's limits are meant for queries.

    Cut off, a refresh would begin anew each time, and an upgrade never end.
    """
    conn.execute(
        "select set_config(name, '0', false) from pg_settings"
        " where name in ('statement_timeout', 'transaction_timeout')"
    )


def is_read_only(conn: Connection[TupleRow]) -> bool:
    """Whether nothing can be written by it: a standby, or set so. The server has said that by itself."""
    told = map(conn.info.parameter_status, ("in_hot_standby", "default_transaction_read_only"))
    return "on" in told


def require_schema(conn: Connection[TupleRow]) -> None:
    """Raise SchemaMissingError unless this database holds the schema of this tickstock."""
    try:
        if fetch_value(conn, "select to_regclass('tickstock.migrations')") is None:
            missing: str | None = "the database has no tickstock schema"
        else:
            missing = _outdated(conn)
    except psycopg.errors.InsufficientPrivilege as error:
        raise TickstockError(
            f"{conn.info.user} may not read the schema on {where(conn.info.dsn)}: let its owner run "
            f"`tickstock db grant reader {conn.info.user}`, or writer for ingest and scan"
        ) from error
    if missing:
        raise SchemaMissingError(f"{missing}: run `tickstock db migrate` on {where(conn.info.dsn)}")


def _outdated(conn: Connection[TupleRow]) -> str | None:
    rows = conn.execute("select name, engine, sha256 from tickstock.migrations").fetchall()
    if not rows:
        return "the database has no tickstock schema"
    engine = rows[0][1]
    applied = {name: sha256 for name, _, sha256 in rows}
    pending = [f.name for f in sqlfiles.files("migrations", engine) if f.name not in applied]
    if pending:
        return f"the schema is older than this tickstock (lacks {', '.join(pending)})"
    if applied.get("objects") != sqlfiles.combined_sha256(sqlfiles.files("objects", engine)):
        return "the schema's views and functions are those of another tickstock version"
    return None
