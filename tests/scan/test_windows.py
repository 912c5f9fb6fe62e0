"""Windows: exactly the last candles of ohlcv_<timeframe> up to the judged one, oldest first."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.scan.support import (
    Recorder,
    Window,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    signalling,
    write,
)
from tickstock.bars import Bar
from tickstock.patterns import Bools, Candles, PythonPattern
from tickstock.patterns.sql_files import parse
from tickstock.scan.history import History, scan_together
from tickstock.scan.scanner import Candle, Scanner
from tickstock.scan.windows import Span, at, read_series
from tickstock.timeframes import TIMEFRAMES

LONGEST = 7
SYMBOLS = (f"S{n}" for n in count())

DAYS = ("2025-10-31", "2025-11-03", "2025-11-26", "2025-11-27", "2025-11-28", "2025-12-01")
minutes = st.builds(
    lambda day, minute: new_york(f"{day} 08:25") + timedelta(minutes=minute),
    st.sampled_from(DAYS),
    # Around the opening, a few in a row; around the close of a half day; anywhere.
    st.one_of(st.integers(60, 80), st.integers(270, 280), st.integers(0, 600)),
)
prices = st.decimals(Decimal("0.0100"), Decimal("99999.9999"), places=4)
volumes = st.integers(0, 10**12)
bars = st.builds(lambda ts, price, volume: (ts, str(price), volume), minutes, prices, volumes)


def directly(conn: Connection[TupleRow], window: Window, length: int) -> list[TupleRow]:
    """The candles, by the plainest of queries, as floats."""
    query = sql.SQL(
        "select extract(epoch from ts)::float8, open::float8, high::float8, low::float8,"
        " close::float8, volume::float8 from {} where symbol = %s and ts <= %s"
        " order by ts desc limit %s"
    ).format(sql.Identifier(f"ohlcv_{window.timeframe}"))
    end = window.candle.ts
    return conn.execute(query, (window.symbol, end, length)).fetchall()[::-1]


def rows_of(window: Window) -> list[TupleRow]:
    columns = (window.ts, window.open, window.high, window.low, window.close, window.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def candles_of(conn: Connection[TupleRow], symbol: str) -> set[Candle]:
    return {
        Candle(timeframe, symbol, ts)
        for timeframe in TIMEFRAMES
        for (ts,) in conn.execute(
            sql.SQL("select ts from {} where symbol = %s").format(
                sql.Identifier(f"ohlcv_{timeframe}")
            ),
            (symbol,),
        )
    }


def windows_of(conn: Connection[TupleRow], symbol: str, length: int) -> list[Window]:
    """What a pattern sees when all candles of a symbol are scanned."""
    write(conn, bar("CLOCK", new_york("2025-12-31 17:31")))  # all are complete
    recorder = Recorder(length)
    for timeframe in TIMEFRAMES:
        conn.execute(
            sql.SQL(
                "insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)"
                " select tickstock.shard_of(symbol), %s, '-infinity', array_agg(symbol), array_agg(ts)"
                " from {} where symbol = %s group by symbol"
            ).format(sql.Identifier(f"ohlcv_{timeframe}")),
            (timeframe, symbol),
        )
    drain(conn, recorder)
    return [window for window in recorder.windows if window.symbol == symbol]


class Past(NamedTuple):
    """Bars of one symbol: before a refresh, after it, and which of the first are deleted."""

    before: list[tuple[datetime, str, int]]
    after: list[tuple[datetime, str, int]]
    deleted: set[int]


histories = st.builds(
    Past,
    st.lists(bars, min_size=1, max_size=40),
    st.lists(bars, max_size=15),
    st.sets(st.integers(0, 39), max_size=5),
)


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],  # shrinking takes minutes with a database
)
@given(st.lists(histories, min_size=1, max_size=4), st.integers(1, LONGEST))
def test_they_are_what_a_plain_query_gives(
    conn: Connection[TupleRow], given_histories: list[Past], length: int
) -> None:
    """Whether candles are materialized, changed since, or gone since."""
    of_symbols = {next(SYMBOLS): history for history in given_histories}
    for symbol, history in of_symbols.items():
        write(conn, *(bar(symbol, *rest) for rest in history.before))
    conn.execute("call ohlcv_refresh()")
    for symbol, history in of_symbols.items():
        write(conn, *(bar(symbol, *rest) for rest in history.after))
        for ts in {ts for n, (ts, *_) in enumerate(history.before) if n in history.deleted}:
            conn.execute("delete from ohlcv_1min where symbol = %s and ts = %s", (symbol, ts))
        windows = windows_of(conn, symbol, length)
        assert {window.candle for window in windows} == candles_of(conn, symbol)
        for window in windows:
            assert rows_of(window) == directly(conn, window, length), window


@pytest.mark.parametrize("reach", [0, 3, 30])
def test_they_reach_back_through_years(conn: Connection[TupleRow], reach: int) -> None:
    """The bars of a symbol may be minutes apart, or a season: the older ones are read otherwise."""
    conn.execute("set tickstock.scan_queue = off")
    newest = new_york("2025-11-24 15:59")
    apart = {"OFTEN": timedelta(minutes=1), "RARE": timedelta(days=5), "SELDOM": timedelta(days=70)}
    there = {
        symbol: [newest - each * n for n in reversed(range(25))] for symbol, each in apart.items()
    }
    there["GONE"] = [ts - timedelta(days=700) for ts in there["OFTEN"]]
    for symbol, times in there.items():
        write(conn, *(bar(symbol, ts, f"{n + 10}.00") for n, ts in enumerate(times)))
    conn.execute("call ohlcv_refresh()")
    spans = [
        Span(symbol, times[first], times[last])
        for symbol, times in there.items()
        for first, last in [(0, 0), (7, 9), (20, 24), (24, 24)]
    ]
    found = {
        (each.symbol, each.span.since): each
        for each in read_series(conn, "1min", spans, reach=reach)
    }
    assert len(found) == len(spans)
    for span in spans:
        times = there[span.symbol]
        first, last = times.index(span.since), times.index(span.until)
        expected = times[max(0, first - reach) : last + 1 + reach]
        series = found[span.symbol, span.since]
        assert [at(ts) for ts in series.ts] == expected, span
        assert series.first == min(first, reach)
        assert series.prices == [f"{times.index(ts) + 10}.00" for ts in expected[series.first :]]


FIVE = timedelta(minutes=5)


def test_they_reach_beyond_candles_that_are_gone_since(conn: Connection[TupleRow]) -> None:
    """Of twelve materialized 5min candles five are gone, in the half hour of the judged one."""
    recorder = Recorder(4, ["5min"])
    write(conn, *a_morning("A", 60), bar("CLOCK", new_york("2025-11-24 16:00")))
    conn.execute("call ohlcv_refresh()")
    drain(conn, Scanner([]))
    conn.execute(
        "delete from ohlcv_1min where symbol = 'A' and ts >= %s and ts < %s",
        (new_york("2025-11-24 10:00"), new_york("2025-11-24 10:25")),
    )
    write(conn, bar("A", new_york("2025-11-24 10:27"), "99"))
    drain(conn, recorder)
    (window,) = recorder.windows
    starts = [new_york(f"2025-11-24 {clock}") for clock in ("09:45", "09:50", "09:55", "10:25")]
    assert window.ts.tolist() == [start.timestamp() for start in starts]
    # Read for themselves, forwards too: what is kept reaches further than patterns ask.
    for judged, there in ((starts[3], starts), (starts[2], [starts[2] - 3 * FIVE, *starts])):
        (series,) = read_series(conn, "5min", [Span("A", judged, judged)], reach=3)
        assert [at(ts) for ts in series.ts] == there


def a_morning(symbol: str, size: int) -> list[Bar]:
    start = new_york("2025-11-24 09:30")
    return [bar(symbol, start + timedelta(minutes=n), f"{10 + n}") for n in range(size)]


@on_one_engine
def test_they_are_shorter_at_the_beginning_of_history(conn: Connection[TupleRow]) -> None:
    recorder = Recorder(3, ["1min"])
    write(conn, *a_morning("AAPL", 5))
    drain(conn, recorder)
    closes = [window.close.tolist() for window in recorder.windows]
    assert closes == [[10], [10, 11], [10, 11, 12], [11, 12, 13], [12, 13, 14]]


@on_one_engine
def test_each_pattern_gets_as_many_as_it_asked_for(conn: Connection[TupleRow]) -> None:
    lengths: dict[str, int] = {}

    def asking(candles: int) -> PythonPattern:
        def where(c: Candles) -> Bools:
            lengths[f"{candles}"] = len(c)
            there: Bools = c.close[-1] > c.close[0]
            return there

        return firing(f"{candles}", where, candles=candles)

    write(conn, *a_morning("AAPL", 6))
    drain(conn, Scanner([asking(1), asking(4)]))
    assert lengths == {"1": 1, "4": 4}


@on_one_engine
def test_events_tell_the_first_candle_that_their_pattern_looked_at(
    conn: Connection[TupleRow],
) -> None:
    """Of a window, of several candles in a row, and in a scan of history."""
    patterns = [signalling("1"), signalling("3", candles=3), parse(TWO, "two.sql")]
    scanner, bars = Scanner(patterns), a_morning("A", 6)
    write(conn, *bars[:4])
    drain(conn, scanner)
    for each in bars[4:]:
        write(conn, each)
        drain(conn, scanner)
    times = [each.ts for each in bars]
    expected = sorted(
        (name, ts, times[max(0, n + 1 - candles)])
        for name, candles in (("1", 1), ("3", 3), ("Two", 2))
        for n, ts in enumerate(times)
    )
    looked = "select pattern, ts, candles_from from events order by 1, 2"
    assert conn.execute(looked).fetchall() == expected
    conn.execute("truncate events")
    history = History(times[0], times[-1] + timedelta(minutes=1), ["1min"])
    scan_together(conn, scanner, ["A"], history)
    assert conn.execute(looked).fetchall() == expected


TWO = """-- Two: everywhere.
-- candles: 2
-- timeframes: 1min
select symbol, judged, 'long', 1, '{}'::jsonb from candles where back = 0
"""


@on_one_engine
def test_they_belong_to_one_symbol(conn: Connection[TupleRow]) -> None:
    recorder = Recorder(9, ["1min"])
    write(conn, *a_morning("A", 4), *a_morning("AA", 2), *a_morning("B", 3))
    drain(conn, recorder)
    lengths = {window.symbol: len(window.ts) for window in recorder.windows}
    assert lengths == {"A": 4, "AA": 2, "B": 3}


@on_one_engine
def test_a_bar_that_is_gone_again_is_not_judged(conn: Connection[TupleRow]) -> None:
    recorder = Recorder(9, ["1min"])
    write(conn, *a_morning("A", 3))
    conn.execute("delete from ohlcv_1min where ts = %s", (new_york("2025-11-24 09:31"),))
    drain(conn, recorder)
    assert [window.close.tolist() for window in recorder.windows] == [[10], [10, 12]]


@on_one_engine
def test_times_are_seconds_in_utc(conn: Connection[TupleRow]) -> None:
    recorder = Recorder(1, ["1min"])
    write(conn, bar("A", new_york("2025-07-01 09:30")))
    drain(conn, recorder)
    (window,) = recorder.windows
    assert window.ts.tolist() == [datetime(2025, 7, 1, 13, 30, tzinfo=UTC).timestamp()]
