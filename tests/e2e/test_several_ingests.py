"""Two ingests, each with symbols of its own, on one database: as if one had done it all."""

import signal
from datetime import timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tickstock.simulator import RandomMarket, Simulator

from .hand_fed import OPENING
from .program import KEY, eventually, running, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

MARKET = RandomMarket(20, seed=5, start=OPENING, end=OPENING + timedelta(minutes=45))
STRETCHES = "select symbols from feed_live where alive order by 1"


def test_each_stores_its_symbols_and_owes_only_them(url: str, conn: Connection[TupleRow]) -> None:
    first, second = ",".join(MARKET.symbols[:10]), ",".join(MARKET.symbols[10:])
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        Simulator(MARKET, keys=[KEY], speed=600) as simulator,
        running("ingest", "--symbols", first, "--feed-url", simulator.url, **settings) as one,
        running("ingest", "--symbols", second, "--feed-url", simulator.url, **settings) as other,
    ):
        until(url, "select count(*) from feed_live where alive", 2)
        # One of them is killed in the midst of it.
        until(url, "select max(ts) > %s from ohlcv_1min where symbol = %s", True,
              OPENING + timedelta(minutes=20), MARKET.symbols[0])
        one.send(signal.SIGKILL)
        one.wait()
        assert simulator.finished.wait(30)
        assert other.stop() == 0
    print(simulator.sent.keys().__len__(), conn.execute("select count(*) from ohlcv_1min").fetchone())
    print(conn.execute("select * from feed_live").fetchall())
    print(conn.execute("select symbol, starts, ends from feed_gaps").fetchall())
    print(conn.execute("select * from minutes_complete order by ts limit 6").fetchall())
    assert 0
