"""`tickstock db …`."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from tickstock import logs
from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db import migrate as migrations
from tickstock.db import roles
from tickstock.db.connection import connect, parse, require_schema, tls
from tickstock.db.source import DBNAME, DEMO_DBNAME, Database, database
from tickstock.db.status import status as read_status
from tickstock.embedded.installations import find_installations
from tickstock.embedded.server import psql_command
from tickstock.errors import TickstockError


@click.group()
def db() -> None:
    """The database: its schema, its state, a shell."""


@db.command()
@click.option(
    "--without-timescaledb",
    is_flag=True,
    help="Use plain tables even where the server offers TimescaleDB.",
)
@options.as_json()
@options.database_url
@options.verbosity
def migrate(without_timescaledb: bool, as_json: bool, database_url: str | None) -> None:
    """Install or upgrade the schema. Safe to repeat, and to run many times at once.

    \b
    Example: tickstock db migrate --database-url postgresql://me@db.example/market
    """
    with database(database_url) as source:
        done = migrations.migrate(source.url, use_timescaledb=not without_timescaledb)
        # An embedded database is migrated as it is opened.
        done = done._replace(applied=[*source.applied, *done.applied])
        if as_json:
            click.echo(orjson.dumps(done._asdict()))
            return
        what = f"applied {', '.join(done.applied)}" if done.applied else "nothing to do"
        click.echo(f"engine {done.engine}: {what}")


@db.command()
@options.as_json()
@options.database_url
@options.verbosity
def status(as_json: bool, database_url: str | None) -> None:
    """Show the engine, the sizes of the tables, and how fresh they are.

    Row counts are estimates as of the last analyze; ? (--json: null) means that there was none.

    \b
    Example: tickstock db status --json | jq .freshness
    """
    with database(database_url) as source, connect(source.url, program="status") as conn:
        told = read_status(conn)
    if as_json:
        click.echo(orjson.dumps(told, default=str, option=orjson.OPT_UTC_Z))
    else:
        _show(told)


@db.command()
@click.option("--dry-run", is_flag=True, help="Only show the SQL, without the password.")
@click.argument("kind", type=click.Choice(["reader", "writer"]))
@click.argument("name")
@options.as_json("One JSON object: what is done, and its SQL without the password.")
@options.database_url
@options.verbosity
def grant(
    dry_run: bool, kind: roles.Kind, name: str, as_json: bool, database_url: str | None
) -> None:
    """Let the role NAME read, or write, and say what is done for that. Safe to repeat.

    A reader may select everything and change nothing: for analysts and dashboards. A writer is for
    ingest, scan, listen, load and backfill. If the role does not exist, it is created with the password
    in the environment variable TICKSTOCK_ROLE_PASSWORD; an existing role keeps its password.

    \b
    Example: TICKSTOCK_ROLE_PASSWORD=… tickstock db grant reader grafana
    """
    password = os.environ.get(roles.PASSWORD_VARIABLE)
    logs.hide(password)
    with database(database_url) as source, connect(source.url, program="grant") as conn:
        require_schema(conn)
        with conn.transaction():
            steps = roles.plan(conn, kind, name, password, dry=dry_run)
            if not dry_run:
                roles.apply(conn, steps)
        told = [{"says": each.says, "sql": each.shown.as_string(conn)} for each in steps]
    if as_json:
        granted = {"role": name, "kind": kind, "applied": not dry_run, "steps": told}
        click.echo(orjson.dumps(granted))
        return
    for step in told:
        click.echo(f"{step['sql']};" if dry_run else f"- {step['says']}")
    if not dry_run:
        click.echo(f"{name} is a {kind}")


@db.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--demo", is_flag=True, help="Use the embedded database that the latest `tickstock demo` left."
)
@click.argument("arguments", nargs=-1, metavar="[PSQL-ARGUMENTS]...")
@options.database_url
def shell(demo: bool, arguments: tuple[str, ...], database_url: str | None) -> None:
    """Open psql on the database. An embedded server runs as long as psql does.

    \b
    Example: tickstock db shell -c "select * from ohlcv_5min order by ts desc limit 5"
    """
    options.set_up_logging(logging.WARNING)
    with database(database_url, dbname=DEMO_DBNAME if demo else DBNAME) as source:
        given = parse(source.url)
        environment = dict(os.environ)
        if password := given.pop("password", None):
            environment["PGPASSWORD"] = str(password)  # not where `ps` shows it
        command = _psql(source, make_conninfo("", **given, **tls(given)))
        # Ctrl-C is for psql, which cancels a query with it.
        signal.signal(signal.SIGINT, lambda _signal, _frame: None)
        done = subprocess.run([*command, *arguments], env=environment, check=False)
    sys.exit(done.returncode)


def _psql(source: Database, dsn: str) -> list[str]:
    """psql of the embedded server, else this machine's, else that of any PostgreSQL here."""
    if source.installation:
        return psql_command(source.installation, dsn)
    if shutil.which("psql"):
        return ["psql", dsn]
    for installation in find_installations():
        if installation.root is None and installation.program("psql").is_file():
            return psql_command(installation, dsn)
    raise TickstockError(
        "psql is not installed: apt install postgresql-client, or use any other client"
    )


def _show(told: dict[str, Any]) -> None:
    console = Console(highlight=False)
    versions = told["versions"]
    extension = f" with TimescaleDB {versions['timescaledb']}" if versions["timescaledb"] else ""
    console.print(
        f"[bold]{told['engine']}[/]: PostgreSQL {versions['postgresql']}{extension}, "
        f"schema of tickstock {versions['tickstock']}",
        soft_wrap=True,
    )
    if told["engine"] != told["schema_made_for"]:
        console.print(
            f"The schema was made for the engine {told['schema_made_for']}, and stays so."
        )
    table = Table("relation", box=None)
    for column in ("rows, about", "size", "chunks", "in columnstore"):
        table.add_column(column, justify="right")
    for relation in told["relations"]:
        rows = relation["approximate_rows"]
        table.add_row(
            relation["relation"],
            "?" if rows is None else f"{rows:,}",
            _size(relation["bytes"]),
            str(relation["chunks"] or ""),
            _columnstore(relation),
        )
    console.print(table)
    fresh = told["freshness"]
    clock: datetime | None = fresh["feed_clock"]
    lines = [
        ("feed's clock", f"{clock.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if clock else "no bar yet"),
        ("half hours to refresh", f"{fresh['dirty_half_hours']:,}"),
        ("candles to scan", f"{fresh['candles_to_scan']:,}"),
        ("events to publish", f"{fresh['events_to_publish']:,}"),
        ("refused in 24 hours", f"{fresh['refused_today']:,}"),
        ("bars are kept", _kept(fresh)),
    ]
    if told["engine"] == "community":
        after: timedelta | None = fresh["columnstore_after"]
        moved = f"after {counted(after.days, 'day')}" if after else "never"
        lines.append(("into the columnstore", moved))
    for label, value in lines:
        console.print(f" {label:<21}  {value}")


def _columnstore(relation: dict[str, Any]) -> str:
    chunks = relation["columnstore_chunks"]
    return (
        f"{chunks} of {relation['chunks']}, {_size(relation['columnstore_bytes'])}"
        if chunks
        else ""
    )


def _kept(fresh: dict[str, Any]) -> str:
    keep: timedelta | None = fresh["keep_bars"]
    kept = counted(keep.days, "day") if keep else "for ever"
    since: datetime | None = fresh["bars_since"]
    return f"{kept}; before {since.astimezone(UTC):%Y-%m-%d} they are dropped" if since else kept


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1024:
            return f"{number:,.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} TB"
