"""Two ingests, each with symbols of its own, on one database: each answers for its own."""

import signal
from datetime import timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tickstock.db.connection import fetch_value

from .hand_fed import OPENING, bars, hand_fed
from .program import KEY, running, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

STORED = "select count(*) from ohlcv_1min where symbol = %s"
ALIVE = "select array_agg(symbols order by symbols) from feed_live where alive"
OWED = "select array_agg(symbol) from feed_gaps where tstzrange(starts, ends) @> %s::timestamptz"


def test_what_one_of_them_misses_the_other_does_not_owe(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        hand_fed() as second_feed,
        running("ingest", "--symbols", "A", "--feed-url", feed.url, **settings) as killed,
        running("ingest", "--symbols", "B", "--feed-url", second_feed.url, **settings) as other,
    ):
        until(url, ALIVE, [["A"], ["B"]])
        feed.send(*bars("A", range(20)))
        second_feed.send(*bars("B", range(20)))
        until(url, STORED, 20, "A")
        killed.send(signal.SIGKILL)
        killed.wait()
        until(url, ALIVE, [["B"]])
        second_feed.send(*bars("B", range(20, 60)))
        until(url, STORED, 60, "B")
        assert other.stop() == 0
    assert differences(read_snapshot(conn)) == []
    # In the midst of what the other has covered. Near the edges of a stretch late bars may be missing.
    assert fetch_value(conn, OWED, OPENING + timedelta(minutes=25)) == ["A"]
