"""Events as they are recorded and notified."""

import json
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any, LiteralString

import numpy as np
import pytest
from psycopg import Connection
from psycopg.errors import NotNullViolation
from psycopg.rows import TupleRow

from tests.contract.oracle import read_snapshot
from tests.scan.support import bar, drain, firing, new_york, on_one_engine, signalling, write
from tickstock.db.connection import connect, fetch_value
from tickstock.patterns import Pattern
from tickstock.patterns.discovery import discover
from tickstock.scan.scanner import Scanned, Scanner
from tickstock.timeframes import TIMEFRAMES

OPENING = new_york("2025-07-01 09:30")

RECORD = """
select tickstock.record_events('{"1min": {"Doji": {}}}',
  json_build_array(json_build_object('timeframe', '1min', 'symbol', %(symbol)s::text,
    'since', %(ts)s::timestamptz, 'until', %(ts)s::timestamptz)),
  '{1}', array[extract(epoch from %(ts)s::timestamptz)], %(price)s::text, '{Doji}',
  '{1}', '{1}', '{0}', '{0.5}', array[extract(epoch from %(ts)s::timestamptz)], '[{}]')
"""


def record_doji(
    conn: Connection[TupleRow], symbol: str, price: object, query: LiteralString = RECORD
) -> None:
    conn.execute(query, {"symbol": symbol, "ts": OPENING, "price": price})


def trend(timeframe: str) -> Pattern:
    return firing(
        "Trend",
        lambda c: c.close[-1] > 0,
        timeframes=[timeframe],
        direction=-1,
        details=lambda c: {"slope": np.full(c.close[-1].shape, 0.25)},
    )


def heard(conn: Connection[TupleRow]) -> list[str]:
    """Notifications that have come so far."""
    conn.execute("select")
    return [notify.payload for notify in conn.notifies(timeout=0)]


def test_the_notification_is_the_event_as_json(url: str, conn: Connection[TupleRow]) -> None:
    direction = trend("5min")
    price = "12345.678901234567890"
    with connect(url, program="test") as listener:
        listener.execute("listen tickstock_patterns")
        write(conn, bar("BRK.B", OPENING, price), bar("CLOCK", new_york("2025-07-01 09:35")))
        drain(conn, Scanner([direction]))
        (payload,) = heard(listener)
    event: dict[str, Any] = json.loads(payload, parse_float=Decimal)
    assert event == {
        "id": fetch_value(conn, "select id from events"),
        "pattern": "Trend",
        "symbol": "BRK.B",
        "timestamp": "2025-07-01T13:30:00Z",
        "direction": "short",
        "timeframe": "5min",
        "price": Decimal(price),
        "change": fetch_value(conn, "select change from events"),
        "strength": 1,
        "late": False,
        "retracted": False,
    }
    assert price in payload, "with all its digits, and no quotes"


AS_JSONB = """
select tickstock.event_payload(e), jsonb_build_object(
  'id', id, 'pattern', pattern, 'symbol', symbol,
  'timestamp', to_char(ts at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  'direction', direction, 'timeframe', timeframe, 'price', price, 'change', change,
  'strength', strength, 'late', late, 'retracted', retracted_at is not null)::text
from events e order by id
"""
AWKWARD = """
insert into events
  (pattern, symbol, timeframe, ts, direction, price, strength, candles_from, lag, late, retracted_at)
select pattern, symbol, '5min', ts, 'neutral', price, strength, ts, '0', price > 1,
  case when price < 1 then ts end
from unnest(array['Doji', 'q"uote', E'back\\\\slash\\ttab', 'é€', '{}']) pattern,
  unnest(array['BRK.B', E'a"\\n']) symbol,
  (values (0.000001, 0.1, '2025-07-01 13:30+00'::timestamptz),
     (12345.678901234567890, 1, '1999-12-31 23:59+05:30'),
     (100.00, 0, '2025-01-01'), (7e20, 0.333333, '2025-01-02')) v (price, strength, ts)
"""


@on_one_engine
def test_a_payload_is_the_text_that_jsonb_would_have(conn: Connection[TupleRow]) -> None:
    conn.execute("set timezone = 'Asia/Kolkata'")
    conn.execute(AWKWARD)
    rows = conn.execute(AS_JSONB).fetchall()
    assert len(rows) == 40
    assert [told for told, _ in rows] == [expected for _, expected in rows]


@on_one_engine
def test_a_bar_at_the_bounds_stops_nothing(url: str, conn: Connection[TupleRow]) -> None:
    large, small = "9" * 30 + "." + "9" * 100, "1e-100"
    bars = [
        # Of all characters a control character takes the most room in JSON.
        ("\1" * 256, "1700-01-01 00:00+00", large, small),
        ("A", "2025-07-01 13:30+00", large, large),
        ("A", "2025-07-01 13:31+00", small, small),
        ("A", "2999-12-31 23:59+00", small, large),
    ]
    for symbol, ts, price, volume in bars:
        conn.execute(
            "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)"
            " values (%(s)s, %(ts)s, %(p)s, %(p)s, %(p)s, %(p)s, %(v)s, %(p)s)",
            {"s": symbol, "ts": ts, "p": price, "v": volume},
        )
    conn.execute("call ohlcv_refresh()")
    read_snapshot(conn)
    for timeframe in TIMEFRAMES:
        conn.execute("select * from latest_candles(%s, '-infinity')", (timeframe,)).fetchall()
    conn.execute("select * from candles('A', '10 minutes', fill => true, last => 5)").fetchall()
    conn.execute("select * from feed_status, symbol_status(), coverage()").fetchall()
    with connect(url, program="test") as listener:
        listener.execute("listen tickstock_patterns")
        drain(conn, Scanner([*discover(), signalling(timeframes=TIMEFRAMES)]))
        events = [json.loads(payload) for payload in heard(listener)]
    assert {event["symbol"] for event in events} == {"A", "\1" * 256}
    assert (
        fetch_value(conn, "select count(*) from tickstock.dirty where granule < '2999-12-31'") == 0
    )


def test_the_table_tells_the_numbers_behind_it(conn: Connection[TupleRow]) -> None:
    pattern = trend("1min")
    write(conn, bar("AAPL", OPENING, "99.90"))
    drain(conn, Scanner([pattern]))
    row = conn.execute(
        "select pattern, symbol, timeframe, ts, direction, price::text, details from events"
    ).fetchone()
    assert row == ("Trend", "AAPL", "1min", OPENING, "short", "99.90", {"slope": 0.25})


@on_one_engine
def test_nothing_is_notified_that_did_not_happen(url: str, conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    with connect(url, program="test") as listener:
        listener.execute("listen tickstock_patterns")
        with conn.transaction(force_rollback=True):
            assert drain(conn, Scanner([signalling()])).events == 1
        assert heard(listener) == []


@on_one_engine
def test_an_event_is_there_once(url: str, conn: Connection[TupleRow]) -> None:
    with connect(url, program="test") as listener:
        listener.execute("listen tickstock_patterns")
        for price in ("1.10", "1.10", "1.20"):
            record_doji(conn, "AAPL", Decimal(price))
        notified = [json.loads(payload) for payload in heard(listener)]
    assert [event["price"] for event in notified] == [1.1, 1.2], "made, and changed"
    assert len({event["id"] for event in notified}) == 1
    assert notified[0]["change"] < notified[1]["change"]
    assert conn.execute("select price from events").fetchall() == [(Decimal("1.20"),)]


@on_one_engine
def test_an_event_tells_what_it_was_found_with_last(conn: Connection[TupleRow]) -> None:
    told = "select parameters, ts - candles_from, change > %s from events"
    change = 0
    set_otherwise = RECORD.replace('"Doji": {}', '"Doji": {"body": 0.1}')
    from_further_back = set_otherwise.replace("'{0.5}', array[", "'{0.5}', array[-60 + ")
    for query, found_with in (
        (RECORD, ({}, timedelta(0), True)),
        (set_otherwise, ({"body": 0.1}, timedelta(0), True)),
        (from_further_back, ({"body": 0.1}, timedelta(minutes=1), True)),
        (from_further_back, ({"body": 0.1}, timedelta(minutes=1), False)),
    ):
        record_doji(conn, "AAPL", 1, query)
        assert conn.execute(told, (change,)).fetchall() == [found_with]
        change = fetch_value(conn, "select change from events")


@on_one_engine
def test_events_come_in_the_order_of_their_candles(url: str, conn: Connection[TupleRow]) -> None:
    scanner = Scanner([signalling("B"), signalling("A")])
    later = new_york("2025-07-01 09:31")
    write(conn, *(bar(symbol, ts) for symbol in "YX" for ts in (later, OPENING)))
    with connect(url, program="test") as listener:
        listener.execute("listen tickstock_patterns")
        assert drain(conn, scanner) == Scanned(4, 8)
        notified = [json.loads(payload) for payload in heard(listener)]
    assert [event["id"] for event in notified] == sorted(event["id"] for event in notified)
    assert [(e["timestamp"][11:16], e["symbol"], e["pattern"]) for e in notified] == [
        (clock, symbol, pattern)
        for clock in ("13:30", "13:31")
        for symbol in ("X", "Y")
        for pattern in ("A", "B")
    ]


LATE = [
    # A candle (the only one of its symbol), and the feed's latest minute when its event is recorded.
    ("1min", "2025-11-20 09:30", "2025-11-20 09:30", False),
    ("5min", "2025-11-20 09:30", "2025-11-20 09:38", False),
    ("5min", "2025-11-20 09:30", "2025-11-20 09:39", True),
    ("1min", "2025-11-20 09:30", "2025-11-20 09:40", True),
    # The evening's last candles are known to be complete, and a Friday's events found, when it goes on.
    ("5min", "2025-11-21 19:55", "2025-11-24 04:03", False),
    ("5min", "2025-11-21 19:55", "2025-11-24 04:04", True),
    ("4hour", "2025-11-21 16:00", "2025-11-24 07:58", False),
    ("4hour", "2025-11-21 16:00", "2025-11-24 07:59", True),
    ("daily", "2025-11-21 00:00", "2025-11-24 15:58", False),
    ("daily", "2025-11-21 00:00", "2025-11-24 15:59", True),
    # The next week has a holiday and ends with a half day.
    ("weekly", "2025-11-17 00:00", "2025-11-28 12:58", False),
    ("weekly", "2025-11-17 00:00", "2025-11-28 12:59", True),
]


@on_one_engine
def test_an_event_is_late_once_the_next_candle_that_trades_is_over(
    conn: Connection[TupleRow],
) -> None:
    scanner = Scanner([signalling(timeframes=TIMEFRAMES)])
    late = "select late from events where symbol = %s and timeframe = %s and ts = %s"
    for timeframe, starts, clock, is_late in LATE:
        ts, symbol = new_york(starts), f"{timeframe} {clock}"
        # Those that are made of regular sessions have a bar at an opening.
        inside = ts + timedelta(hours=9.5) if ts == new_york(f"{starts[:10]} 00:00") else ts
        write(conn, bar(symbol, inside), bar("CLOCK", new_york(clock)))
        drain(conn, scanner)
        assert fetch_value(conn, late, symbol, timeframe, ts) is is_late, (timeframe, clock)


@on_one_engine
def test_who_has_read_up_to_an_id_has_missed_none_before_it(
    url: str, conn: Connection[TupleRow]
) -> None:
    """A later recorder waits for an earlier one's commit, so that ids become visible in order."""
    with connect(url, program="test") as later:
        recorded = threading.Event()

        def record() -> None:
            record_doji(later, "LATER", 1)
            recorded.set()

        thread = threading.Thread(target=record)
        with conn.transaction():
            record_doji(conn, "EARLIER", 1)
            thread.start()
            while not fetch_value(
                conn, "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            ):
                assert not recorded.is_set()
        thread.join()
    assert conn.execute("select symbol from events order by id").fetchall() == [
        ("EARLIER",),
        ("LATER",),
    ]


@on_one_engine
def test_only_what_comes_after_the_first_redis_waits_for_it(conn: Connection[TupleRow]) -> None:
    waiting = "select events_to_publish from tickstock.freshness"
    write(conn, bar("BEFORE", OPENING))
    drain(conn, Scanner([signalling()]))
    assert fetch_value(conn, waiting) == 0
    for _ in range(2):  # again is harmless
        conn.execute("call tickstock.begin_publishing()")
    assert fetch_value(conn, waiting) == 0
    write(conn, bar("AFTER", OPENING))
    drain(conn, Scanner([signalling()]))
    conn.execute("call tickstock.begin_publishing()")
    assert fetch_value(conn, waiting) == 1


@on_one_engine
def test_the_table_refuses_what_is_no_direction(conn: Connection[TupleRow]) -> None:
    with pytest.raises(NotNullViolation):
        record_doji(conn, "AAPL", 1, RECORD.replace("'{0}'", "'{2}'"))
