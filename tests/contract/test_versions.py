"""What a bar was before it was corrected, and who corrected it."""

from datetime import UTC, datetime

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars

TS = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
VERSIONS = (
    "select close, source, known_from, known_until from ohlcv_1min_versions order by known_until"
)


def bar(close: int, *, trades: int | None = None) -> Bar:
    return Bar("A", TS, 5, 9, 1, close, 100, None, trades)


def test_each_version_says_from_when_to_when_it_was_known(conn: Connection[TupleRow]) -> None:
    for close, source in ((2, "feed"), (3, "feed"), (4, "rest")):
        write_bars(conn, [bar(close)], source=source)
    conn.execute("update ohlcv_1min set close = 5")
    rows = conn.execute(VERSIONS).fetchall()
    assert [row[:2] for row in rows] == [(2, None), (3, "feed"), (4, "rest"), (5, "sql")]
    times = [row[3] for row in rows[:-1]]
    assert [row[2] for row in rows] == [None, *times]
    assert rows[-1][3] is None
    assert times == sorted(times)


def test_what_was_known_at_a_time(conn: Connection[TupleRow]) -> None:
    write_bars(conn, [bar(2)], source="feed")
    between = fetch_value(conn, "select clock_timestamp()")
    write_bars(conn, [bar(3)], source="feed")
    known = conn.execute(
        "select close from ohlcv_1min_versions where symbol = 'A'"
        " and (known_from <= %(at)s) is not false and (known_until > %(at)s) is not false",
        {"at": between},
    ).fetchall()
    assert known == [(2,)]


def test_when_a_first_version_came_is_not_known_as_the_column_says(
    conn: Connection[TupleRow],
) -> None:
    before = fetch_value(conn, "select clock_timestamp()")
    write_bars(conn, [bar(2)], source="rest")
    taken = conn.execute(
        "select known_from, source from ohlcv_1min_versions where (known_from <= %s) is not false",
        (before,),
    ).fetchall()
    assert taken == [(None, None)], "it came after the time asked about"
    said = (
        "select col_description('ohlcv_1min_versions'::regclass, attnum) from pg_attribute"
        " where attrelid = 'ohlcv_1min_versions'::regclass and attname = 'known_from'"
    )
    assert "when the bar came is not kept" in fetch_value(conn, said)


def test_what_another_source_only_completes_is_no_correction(conn: Connection[TupleRow]) -> None:
    write_bars(conn, [bar(2)], source="feed")
    write_bars(conn, [bar(2, trades=7)], source="rest")
    assert conn.execute(VERSIONS).fetchall() == [(2, None, None, None)]
