"""A database as it is in production: its owner is no superuser, and readers, writers and strangers log in."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.conftest import Engine
from tests.e2e.program import run
from tickstock.db.connection import connect
from tickstock.db.migrate import migrate

PASSWORD = "it's a s3cr3t"  # noqa: S105 - of roles that are gone after the test
OPENS = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)
select symbol, ts, 10, 12, 9, 11, 100, 10.5
from unnest('{AAPL, MSFT}'::text[]) symbol, generate_series(%s::timestamptz, %s, '1 minute') ts
"""


@dataclass(frozen=True)
class Market:
    """Connection strings of one database, by role."""

    admin: str
    owner: str
    writer: str
    reader: str
    outsider: str

    def name(self, role: str) -> str:
        return str(psycopg.conninfo.conninfo_to_dict(getattr(self, role))["user"])


@pytest.fixture(scope="session")
def market(engine: Engine) -> Iterator[Market]:
    """Two symbols, old bars in the columnstore where there is one, an event. Leave it as it is."""
    admin = engine.create()
    dbname = psycopg.conninfo.conninfo_to_dict(admin)["dbname"]
    names = {role: f"{role}_{dbname}" for role in ("owner", "writer", "reader", "outsider")}
    market = Market(
        admin, **{role: make_conninfo(admin, user=user) for role, user in names.items()}
    )
    with psycopg.connect(admin, autocommit=True) as conn:
        _prepare(conn, engine, names)
        migrate(market.owner)
        for role in ("reader", "writer"):
            done = run(
                "db", "grant", role, names[role],
                TICKSTOCK_DATABASE_URL=market.owner, TICKSTOCK_ROLE_PASSWORD=PASSWORD,
            )  # fmt: skip
            assert done.returncode == 0, done
        _fill(market)
        yield market
    engine.drop(admin)
    with psycopg.connect(make_conninfo(admin, dbname="postgres"), autocommit=True) as conn:
        for name in reversed(names.values()):  # members before who made them so
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def _prepare(
    conn: psycopg.Connection[tuple[object, ...]], engine: Engine, names: dict[str, str]
) -> None:
    """What an administrator does: the owner, the extension, and who may hand out the group roles."""
    owner, outsider = sql.Identifier(names["owner"]), sql.Identifier(names["outsider"])
    database = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("create role {} login createrole").format(owner))
    conn.execute(sql.SQL("create role {} login").format(outsider))
    conn.execute(sql.SQL("alter database {} owner to {}").format(database, owner))
    if engine.name != "postgres":
        conn.execute("create extension timescaledb")
    for group in ("tickstock_reader", "tickstock_writer"):
        with suppress(psycopg.errors.DuplicateObject):
            conn.execute(sql.SQL("create role {}").format(sql.Identifier(group)))
        conn.execute(
            sql.SQL("grant {} to {} with admin option").format(sql.Identifier(group), owner)
        )


def _fill(market: Market) -> None:
    with connect(market.owner, program="test") as conn:
        # The scheduler's time is its own.
        if conn.execute("select tickstock_engine()").fetchone() == ("community",):
            conn.execute(
                "select alter_job(job_id, scheduled => false)"
                " from timescaledb_information.jobs where proc_schema = 'tickstock'"
            )
        for begin in (OPENS - timedelta(days=28), OPENS):
            conn.execute(BARS, (begin, begin + timedelta(hours=3)))
        conn.execute("call ohlcv_refresh()")
        conn.execute("call tickstock.to_columnstore('2025-11-10')")
        conn.execute(
            "update ohlcv_1min set close = 11.5 where symbol = 'AAPL' and ts >= %s", (OPENS,)
        )
        conn.execute(
            "insert into events (pattern, symbol, timeframe, ts, direction, price)"
            " values ('Doji', 'AAPL', '5min', %s, 'neutral', 11)",
            (OPENS,),
        )


@pytest.fixture
def unique() -> str:
    """A part of a name that nobody else has: roles belong to the whole server."""
    return secrets.token_hex(4)
