"""What became of events, against Python over the bars; and how little is read for it."""

import statistics
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.contract.test_query_plans import read
from tickstock.db.connection import connect, fetch_value
from tickstock.timeframes import TIMEFRAMES

# Two months of 8 bars a session, every 30 minutes, after a while without changes of price.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, d.opens_at + m * interval '30 minutes', p, p + 1, p - 1, p + 0.5, 100
from (values ('UP', 100), ('DOWN', 200)) s (symbol, price), trading_days d, generate_series(0, 7) m,
  lateral (select price + round((10 * sin(extract(epoch from d.opens_at) / 4e5 + m))::numeric, 2) as p) b
where d.day between '2025-09-02' and '2025-10-31'
"""
EVENT = """
insert into events (pattern, symbol, timeframe, ts, direction, price, candles_from)
select 'P', symbol, %(timeframe)s, ts, %(direction)s, close, lag(ts, 3) over (order by ts)
from ohlcv_{timeframe} where symbol = %(symbol)s
"""
CANDLES = "select ts, close, complete from ohlcv_{} where symbol = %s order by ts"
OUTCOMES = """
select ts, candles_after, return_1, return_5, return_20 from event_outcomes
where symbol = %s and timeframe = %s order by ts
"""


@pytest.fixture(scope="module")
def market(engine: Engine) -> Iterator[Connection[TupleRow]]:
    """An event on each candle; the bars of the last days have been changed since the last refresh."""
    url = engine.clone()
    try:
        with connect(url, program="test") as conn:
            conn.execute("set tickstock.scan_queue = off")
            conn.execute(BARS)
            conn.execute("call ohlcv_refresh()")
            conn.execute("update ohlcv_1min set close = close - 0.25 where ts >= '2025-10-22'")
            for timeframe in TIMEFRAMES:
                for symbol, direction in (("UP", "long"), ("DOWN", "short")):
                    values = {"timeframe": timeframe, "symbol": symbol, "direction": direction}
                    conn.execute(EVENT.format(timeframe=timeframe).encode(), values)
            # So that no query has to pass over what the update has left behind.
            conn.execute("vacuum analyze")
            yield conn
    finally:
        engine.drop(url)


def candles(
    conn: Connection[TupleRow], timeframe: str, symbol: str
) -> list[tuple[datetime, Decimal]]:
    rows = conn.execute(CANDLES.format(timeframe).encode(), (symbol,)).fetchall()
    return [(ts, close) for ts, close, complete in rows if complete]


def expected(closes: list[Decimal], sign: int) -> list[tuple[Any, ...]]:
    def after(place: int, number: int) -> Decimal | None:
        if place + number >= len(closes):
            return None
        return round((closes[place + number] / closes[place] - 1) * sign, 6)

    return [
        (min(20, len(closes) - 1 - n), after(n, 1), after(n, 5), after(n, 20))
        for n in range(len(closes))
    ]


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_outcomes_are_what_the_candles_say(market: Connection[TupleRow], timeframe: str) -> None:
    for symbol, sign in (("UP", 1), ("DOWN", -1)):
        complete = candles(market, timeframe, symbol)
        rows = market.execute(OUTCOMES, (symbol, timeframe)).fetchall()
        told = {ts: tuple(rest) for ts, *rest in rows}
        oracle = expected([close for _, close in complete], sign)
        assert complete
        for (ts, _), row in zip(complete, oracle, strict=True):
            assert told[ts] == row, (symbol, ts)


NOT_AS_THE_VIEW_SAYS = """
select e.ts, n, a.closes from ohlcv_{tf} e cross join generate_series(1, 6) n
cross join lateral tickstock.closes_after_{tf}('A', e.ts, n) a
where e.symbol = 'A' and a.closes is distinct from array(
  select c.close from ohlcv_{tf} c where c.symbol = 'A' and c.ts > e.ts and c.complete order by c.ts limit n)
"""


def test_closes_are_those_of_the_view_whatever_is_materialized_and_marked(
    conn: Connection[TupleRow],
) -> None:
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', ts, 10, 20, 5, 10 + extract(minute from ts) / 10, 100"
        " from generate_series(timestamptz '2025-11-24 14:30+00', '2025-11-24 17:20+00', '1 minute') ts"
        # The last hour is materialized as far as it goes, and nothing of it is marked.
        " union all select 'CLOCK', '2025-11-24 17:35+00', 1, 1, 1, 1, 1"
    )
    for change in (
        b"call ohlcv_refresh()",
        b"update ohlcv_1min set close = 19 where symbol = 'A' and ts = '2025-11-24 14:49+00'",
        b"delete from ohlcv_1min where symbol = 'A' and ts >= '2025-11-24 15:05+00'"
        b" and ts < '2025-11-24 15:25+00'",
    ):
        conn.execute(change)
        for timeframe in ("5min", "15min", "1hour"):
            query = NOT_AS_THE_VIEW_SAYS.format(tf=timeframe)
            assert conn.execute(query.encode()).fetchall() == [], change


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_the_next_open_is_that_of_the_next_candle(
    market: Connection[TupleRow], timeframe: str
) -> None:
    """Also of one that is forming."""
    opens = market.execute(
        f"select ts, open from ohlcv_{timeframe} where symbol = 'UP' order by ts".encode()
    ).fetchall()
    told = market.execute(
        "select ts, next_open from event_outcomes where symbol = 'UP' and timeframe = %s order by ts",
        (timeframe,),
    ).fetchall()
    following = [*(price for _, price in opens[1:]), None]
    assert told == [(ts, price) for (ts, _), price in zip(opens, following, strict=True)]
    assert len(told) > 1


def test_performance_is_that_of_the_outcomes(market: Connection[TupleRow]) -> None:
    rows = market.execute("select * from event_outcomes where timeframe in ('5min', 'daily')")
    names = [column.name for column in rows.description or ()]
    outcomes = [dict(zip(names, row, strict=True)) for row in rows]
    told = market.execute("select * from pattern_performance where timeframe in ('5min', 'daily')")
    names = [column.name for column in told.description or ()]
    performances = [dict(zip(names, row, strict=True)) for row in told]
    assert len(performances) == 4
    for performance in performances:
        mine = [
            each for each in outcomes
            if all(each[k] == performance[k] for k in ("pattern", "timeframe", "direction"))
        ]  # fmt: skip
        assert performance["events"] == len(mine)
        for after in (1, 5, 20):
            known = [
                float(each[f"return_{after}"])
                for each in mine
                if each[f"return_{after}"] is not None
            ]
            assert performance[f"known_{after}"] == len(known)
            hits = sum(value > 0 for value in known) / len(known)
            assert float(performance[f"hit_rate_{after}"]) == pytest.approx(hits, abs=1e-4)
            mean, median = statistics.fmean(known), statistics.median(known)
            assert float(performance[f"mean_return_{after}"]) == pytest.approx(mean, abs=2e-6)
            assert float(performance[f"median_return_{after}"]) == pytest.approx(median, abs=2e-6)


def test_retracted_events_have_no_outcome_and_neutral_ones_no_hits(
    market: Connection[TupleRow],
) -> None:
    with market.transaction(force_rollback=True):
        rising = fetch_value(
            market,
            "select avg(case direction when 'short' then -return_1 else return_1 end)"
            " from event_outcomes where timeframe = 'daily' and ts >= '2025-09-15'",
        )
        market.execute(
            "update events set direction = 'neutral',"
            " retracted_at = case when ts < '2025-09-15' then now() end where timeframe = 'daily'"
        )
        events, hit_rate, mean = market.execute(
            "select events, hit_rate_1, mean_return_1 from pattern_performance where timeframe = 'daily'"
        ).fetchone() or (None, None, None)
        assert events == fetch_value(
            market, "select count(*) from events where timeframe = 'daily' and retracted_at is null"
        )
        assert hit_rate is None
        assert mean == pytest.approx(rising, abs=Decimal("2e-6")), "as the price went"


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_price_that_has_not_moved_is_no_hit(market: Connection[TupleRow], after: int) -> None:
    with market.transaction(force_rollback=True):
        market.execute(
            "update events set price = coalesce("
            "(tickstock.closes_after_daily(symbol, ts, %(after)s)).closes[%(after)s], price)"
            " where timeframe = 'daily'",
            {"after": after},
        )
        hits = f"select hit_rate_{after} from pattern_performance where timeframe = 'daily'"
        assert market.execute(hits.encode()).fetchall() == [(0,), (0,)]


def test_the_candles_of_an_event(market: Connection[TupleRow]) -> None:
    for timeframe in TIMEFRAMES[:-1]:
        complete = candles(market, timeframe, "UP")
        n = min(10, len(complete) - 3)
        ts = complete[n][0]
        id_ = fetch_value(
            market,
            "select id from events where symbol = 'UP' and timeframe = %s and ts = %s",
            timeframe,
            ts,
        )
        rows = market.execute(
            "select place, ts, close from event_candles(%s, after => 2)", (id_,)
        ).fetchall()
        wanted = complete[n - 3 : n + 3]
        assert rows == [(place - 3, *candle) for place, candle in enumerate(wanted)], timeframe
        alone = market.execute("select place from event_candles(%s)", (id_,)).fetchall()
        assert alone == [(-3,), (-2,), (-1,), (0,)]
    assert market.execute("select * from event_candles(-1)").fetchall() == []
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the -1 candles after an event"):
        market.execute("select * from event_candles(1, -1)")


def test_the_next_candle_is_not_taken_for_one_that_is_gone(market: Connection[TupleRow]) -> None:
    complete = candles(market, "1min", "UP")
    ts = complete[10][0]
    id_ = fetch_value(
        market, "select id from events where symbol = 'UP' and timeframe = '1min' and ts = %s", ts
    )
    with market.transaction(force_rollback=True):
        market.execute("delete from ohlcv_1min where symbol = 'UP' and ts = %s", (ts,))
        rows = market.execute(
            "select place, ts from event_candles(%s, after => 2)", (id_,)
        ).fetchall()
    places = [(n - 10, candle[0]) for n, candle in enumerate(complete[:13]) if 7 <= n != 10]
    assert rows == places


def test_an_event_without_its_first_candle_has_its_own(market: Connection[TupleRow]) -> None:
    """Those made before version 0.2 don't tell it."""
    id_ = fetch_value(market, "select id from events where candles_from is null limit 1")
    assert market.execute("select place from event_candles(%s)", (id_,)).fetchall() == [(0,)]


def test_minutes_whose_bars_were_dropped_have_no_outcome(conn: Connection[TupleRow]) -> None:
    """The next bar that is left is one of another day."""
    conn.execute("set tickstock.scan_queue = off")
    conn.execute(BARS)
    conn.execute("call ohlcv_refresh()")
    for timeframe in ("1min", "30min"):
        values = {"timeframe": timeframe, "symbol": "UP", "direction": "long"}
        conn.execute(EVENT.format(timeframe=timeframe).encode(), values)
    conn.execute("delete from events where ts < '2025-10-01' or ts > '2025-10-03'")
    outcomes = """
        select timeframe, ts >= '2025-10-02Z' as kept, count(*), count(return_1), count(next_open),
          sum((select count(*) from event_candles(id, after => 5) where place > 0))
        from event_outcomes group by 1, 2 order by 1, 2
    """
    before = conn.execute(outcomes).fetchall()
    assert [known[2:] for known in before] == [(8, 8, 8, 40)] * 4
    conn.execute("call drop_bars('2025-10-02Z')")
    gone, *others = before
    assert conn.execute(outcomes).fetchall() == [(*gone[:3], 0, 0, 0), *others]


@pytest.mark.parametrize("timeframe", ["1min", "5min", "1hour", "daily"])
def test_one_outcome_reads_tens_of_rows(market: Connection[TupleRow], timeframe: str) -> None:
    """Of two months' bars of two symbols. The last test: it refreshes."""
    market.execute("call ohlcv_refresh()")
    market.execute("vacuum analyze")
    ts = datetime(2025, 9, 10, tzinfo=UTC)
    id_ = fetch_value(
        market,
        "select id from events where symbol = 'UP' and timeframe = %s"
        " and ts between %s and %s order by ts limit 1",
        timeframe,
        ts,
        ts + timedelta(days=2),
    )
    for query in (
        "select return_20 from event_outcomes where id = %s",
        "select close from event_candles(%s, after => 20)",
    ):
        found = read(market, query, id_)
        assert found.returned
        candles_read = {name: n for name, n in found.rows.items() if "trading_days" not in name}
        assert sum(candles_read.values()) < 400, (query, found)
