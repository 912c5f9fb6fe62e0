"""Login roles with no more rights than they need: readers and writers of the database.

What each may do is told by `tickstock.rights` (sql/objects/95-rights.sql).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value, first_line, where
from tickstock.errors import TickstockError

Kind = Literal["reader", "writer"]

PASSWORD_VARIABLE = "TICKSTOCK_ROLE_PASSWORD"  # noqa: S105 - where it is, not what
MAY: dict[Kind, str] = {
    "reader": "select from every table and view, and call the functions that only read",
    "writer": "do what readers may, and write what ingest, scan, listen, load and backfill write",
}
READER_LIMITS = {"statement_timeout": "30s", "idle_in_transaction_session_timeout": "1min"}
"""Settings of a reader's login role; a member does not inherit those of a group role."""
LONGEST_NAME = 63
"""Bytes. PostgreSQL cuts off the rest of a name without an error."""

ROLE = """
select r.rolsuper, pg_has_role(r.oid, n.nspowner, 'member'),
  coalesce(pg_has_role(r.oid, to_regrole('tickstock_reader')::oid, 'member'), false),
  coalesce(pg_has_role(r.oid, to_regrole('tickstock_writer')::oid, 'member'), false)
from pg_roles r, pg_namespace n where r.rolname = %s and n.nspname = 'tickstock'
"""
SETTINGS = """
select split_part(setting, '=', 1) from pg_db_role_setting s
join pg_roles r on r.oid = s.setrole cross join unnest(s.setconfig) setting
where r.rolname = %s
  and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
"""


class Step(NamedTuple):
    says: str
    """What the statement does, in plain words."""
    statement: sql.SQL | sql.Composed
    shown: sql.SQL | sql.Composed
    """The statement without what is secret in it."""


class _Role(NamedTuple):
    superuser: bool
    is_owner: bool
    reader: bool
    writer: bool


def plan(
    conn: Connection[TupleRow], kind: Kind, name: str, password: str | None, *, dry: bool = False
) -> list[Step]:
    """What is to be done so that `name` may log in as a reader or a writer; nothing is done yet.

    Raises TickstockError for a name that can't be one, for a role that may do more already, and where
    the role is missing and there is no password for it (unless `dry`, which asks for none).
    """
    role = _look_up(conn, kind, name)
    if role is None and not password and not dry:
        raise TickstockError(
            f"there is no role {name} at {where(conn.info.dsn)}: set {PASSWORD_VARIABLE} to the "
            "password that it shall have, and it is created"
        )
    return list(_steps(conn, kind, name, role, password))


def apply(conn: Connection[TupleRow], steps: Sequence[Step]) -> None:
    """Take the steps, all or none. Raises TickstockError where this user may not."""
    for step in steps:
        try:
            conn.execute(step.statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise TickstockError(
                f"{conn.info.user} may not do this ({step.says}) at {where(conn.info.dsn)}: "
                f"{first_line(error)}. Do it as the owner of the schema with the attribute createrole"
                ", or let an administrator run what --dry-run shows"
            ) from error


def _look_up(conn: Connection[TupleRow], kind: Kind, name: str) -> _Role | None:
    if not name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise TickstockError(
            f"{name[:LONGEST_NAME]!r} can't be the name of a role: 1 to {LONGEST_NAME} bytes, no "
            "control characters"
        )
    if name in (group_of("reader"), group_of("writer")):
        raise TickstockError(f"{name} is the group itself: give the name of a role that logs in")
    found = conn.execute(ROLE, (name,)).fetchone()
    if found is None:
        return None
    role = _Role(*found)
    if role.superuser or role.is_owner:
        raise TickstockError(
            f"{name} {'is a superuser' if role.superuser else 'owns the schema'} and may do all of "
            "that: give the name of another role"
        )
    other: Kind = "writer" if kind == "reader" else "reader"
    if getattr(role, other):
        raise TickstockError(
            f"{name} is a {other}: give another name, or first `revoke {group_of(other)} from` it"
        )
    return role


def _steps(
    conn: Connection[TupleRow], kind: Kind, name: str, role: _Role | None, password: str | None
) -> Iterator[Step]:
    group = sql.Identifier(group_of(kind))
    login = sql.Identifier(name)
    if fetch_value(conn, "select to_regrole(%s)", group_of(kind)) is None:
        yield _step(
            f"create the group role {group_of(kind)}, as which nobody logs in",
            sql.SQL("create role {} nologin").format(group),
        )
    yield _step(
        f"let {group_of(kind)} {MAY[kind]}, and everybody else nothing",
        sql.SQL("select tickstock.apply_rights()"),
    )
    if role is None:
        create = sql.SQL("create role {} login password {}")
        yield Step(
            f"create the role {name}, which logs in with the password in {PASSWORD_VARIABLE}",
            # As the server would store it: a statement may be logged, or seen while it runs.
            create.format(login, sql.Literal(_verifier(conn, name, password or ""))),
            create.format(login, sql.SQL("'…'")),
        )
    if role is None or not getattr(role, kind):
        # From 16 on each membership has its own word on whether rights come by themselves.
        inherit = " with inherit true" if conn.info.server_version >= 160000 else ""
        yield _step(
            f"make {name} a member of it",
            sql.SQL("grant {} to {}" + inherit).format(group, login),
        )
    if kind == "reader":
        already = {setting for (setting,) in conn.execute(SETTINGS, (name,))}
        for setting, value in READER_LIMITS.items():
            if setting not in already:
                yield _step(
                    f"set {setting} = {value} for {name} in this database",
                    sql.SQL("alter role {} in database {} set {} = {}").format(
                        login, sql.Identifier(conn.info.dbname), sql.Identifier(setting), value
                    ),
                )


def group_of(kind: Kind) -> str:
    """The group role whose members are readers, or writers."""
    return f"tickstock_{kind}"


def _step(says: str, statement: sql.SQL | sql.Composed) -> Step:
    return Step(says, statement, statement)


def _verifier(conn: Connection[TupleRow], name: str, password: str) -> str:
    encrypted = conn.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    return encrypted.decode()
