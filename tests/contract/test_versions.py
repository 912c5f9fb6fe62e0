"""What a bar was before it was corrected, who corrected it, and what was known when."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars, write_new_bars

TS = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
VERSIONS = (
    "select close, source, known_from, known_until from ohlcv_1min_versions order by known_until"
)
KNOWN = """
select close from ohlcv_1min_versions
where symbol = 'A' and known_from <= %(at)s and (known_until > %(at)s) is not false order by ts
"""
A_SECOND = timedelta(seconds=1)


def bar(close: int, *, trades: int | None = None, ts: datetime = TS) -> Bar:
    return Bar("A", ts, 5, 9, 1, close, 100, None, trades)


def now(conn: Connection[TupleRow]) -> datetime:
    moment: datetime = fetch_value(conn, "select clock_timestamp()")
    return moment


def known(conn: Connection[TupleRow], at: datetime) -> list[int]:
    return [int(close) for (close,) in conn.execute(KNOWN, {"at": at}).fetchall()]


def test_each_version_says_from_when_to_when_it_was_known(conn: Connection[TupleRow]) -> None:
    before = now(conn)
    for close, source in ((2, "feed"), (3, "feed"), (4, "rest")):
        write_bars(conn, [bar(close)], source=source)
    conn.execute("update ohlcv_1min set close = 5")
    rows = conn.execute(VERSIONS).fetchall()
    assert [row[:2] for row in rows] == [(2, None), (3, "feed"), (4, "rest"), (5, "sql")]
    times = [row[3] for row in rows[:-1]]
    assert [row[2] for row in rows[1:]] == times
    assert before <= rows[0][2] <= times[0], "to the second, but not after it was replaced"
    assert rows[-1][3] is None
    assert times == sorted(times)


def test_what_was_known_at_a_time(conn: Connection[TupleRow]) -> None:
    before = now(conn)
    write_bars(conn, [bar(2)], source="feed")
    write_bars(conn, [bar(3)], source="feed")
    late = now(conn)
    conn.execute("update ohlcv_1min set came = came - 60")  # as if it had come a minute ago
    between = now(conn)
    write_bars(conn, [bar(4), bar(7, ts=TS + timedelta(minutes=1))], source="feed")
    assert known(conn, before - timedelta(minutes=2)) == []
    assert known(conn, late - timedelta(seconds=58)) == [2]
    assert known(conn, between) == [3], "of two bars one was there, not yet as it is now"
    assert known(conn, now(conn) + A_SECOND) == [4, 7]


def test_a_bar_is_never_known_before_it_came_however_it_comes(
    conn: Connection[TupleRow],
) -> None:
    minutes = [TS + timedelta(minutes=n) for n in range(3)]
    ways: list[Callable[[datetime], object]] = [
        lambda ts: write_bars(conn, [bar(2, ts=ts)], source="rest"),
        lambda ts: write_new_bars(conn, [bar(2, ts=ts)], source="feed"),
        lambda ts: conn.execute(
            "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
            " values ('A', %s, 5, 9, 1, 2, 100)",
            (ts,),
        ),
    ]
    spans = []
    for ts, way in zip(minutes, ways, strict=True):
        before = now(conn)
        way(ts)
        spans.append((before, now(conn)))
    conn.execute("call ohlcv_refresh()")
    conn.execute("call tickstock.to_columnstore(now())")
    came = conn.execute("select known_from from ohlcv_1min_versions order by ts").fetchall()
    for (before, after), (known_from,) in zip(spans, came, strict=True):
        assert before <= known_from <= after + A_SECOND


def test_of_bars_that_came_before_it_was_kept_nobody_knows_when(
    conn: Connection[TupleRow],
) -> None:
    write_bars(conn, [bar(2)], source="feed")
    conn.execute("update ohlcv_1min set came = null")  # as a migration left them
    write_bars(conn, [bar(3)], source="rest")
    rows = conn.execute(VERSIONS).fetchall()
    assert [(row[0], row[2] is None) for row in rows] == [(2, True), (3, False)]


def test_a_bar_that_comes_again_after_its_deletion_was_not_known_meanwhile(
    conn: Connection[TupleRow],
) -> None:
    write_bars(conn, [bar(2)], source="feed")
    write_bars(conn, [bar(3)], source="rest")
    conn.execute("delete from ohlcv_1min")
    assert [row[0] for row in conn.execute(VERSIONS).fetchall()] == [2], "the last one is gone"
    # As if all that had been an hour ago.
    conn.execute("update ohlcv_revisions set replaced_at = replaced_at - interval '1 hour'")
    before = now(conn)
    write_bars(conn, [bar(4)], source="rest")
    (*_, (close, source, known_from, known_until)) = conn.execute(VERSIONS).fetchall()
    assert (close, source, known_until) == (4, None, None)
    assert before <= known_from <= now(conn) + A_SECOND


def test_what_another_source_only_completes_is_no_correction(conn: Connection[TupleRow]) -> None:
    write_bars(conn, [bar(2)], source="feed")
    write_bars(conn, [bar(2, trades=7)], source="rest")
    assert [row[:2] for row in conn.execute(VERSIONS).fetchall()] == [(2, None)]


def test_a_corrected_vwap_is_kept_too(conn: Connection[TupleRow]) -> None:
    for vwap, trades in ((None, None), (2.5, 7), (2.75, 7), (2.75, 8), (2.75, 8)):
        write_bars(conn, [bar(2)._replace(vwap=vwap, trades=trades)], source="feed")
    rows = conn.execute(
        "select vwap, trades, source from ohlcv_1min_versions order by known_until"
    ).fetchall()
    assert [(float(vwap), *rest) for vwap, *rest in rows] == [
        (2.5, 7, None),
        (2.75, 7, "feed"),
        (2.75, 8, "feed"),
    ]
