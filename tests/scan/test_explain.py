"""`tickstock explain`: an event in words and numbers, its candles, what came after."""

import itertools
import json
import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import run
from tests.scan.making import OPENING, change_of, event, record
from tests.scan.support import on_one_engine
from tickstock import sqlfiles
from tickstock.chart.terminal import HEIGHT, chart
from tickstock.db.connection import fetch_value
from tickstock.scan.explain import Candle, explain
from tickstock.scan.windows import Span

MINUTE = timedelta(minutes=1)
CLOSES = [10.0, 10.5, 10.25, 11.0, 11.5, 11.25, 12.0, 12.5, 12.25]


def bars(conn: Connection[TupleRow], symbol: str) -> None:
    """A minute each from the opening on, with these closes."""
    for n, close in enumerate(CLOSES):
        conn.execute(
            "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            (symbol, OPENING + n * MINUTE, close - 0.25, close + 0.5, close - 0.75, close, 100 + n),
        )


def made(conn: Connection[TupleRow], symbol: str = "AAPL", pattern: str = "Hammer") -> int:
    """An event in the fourth candle, whose pattern looked at three."""
    bars(conn, symbol)
    ts = OPENING + 3 * MINUTE
    found = event(
        symbol, ts=ts, pattern=pattern, direction="long", price=11.0, since=ts - 2 * MINUTE
    )
    record(conn, [found])
    return int(fetch_value(conn, "select id from events where symbol = %s", symbol))


def test_what_there_is_to_say(conn: Connection[TupleRow]) -> None:
    found = explain(conn, made(conn), after=2)
    assert found is not None
    assert [each.place for each in found.candles] == [-2, -1, 0, 1, 2]
    assert [each.close for each in found.candles] == CLOSES[1:6]
    assert found.candles[2].ts == OPENING + 3 * MINUTE
    assert found.outcome == {
        "candles_after": 5,
        "return_1": pytest.approx(11.5 / 11 - 1, abs=1e-6),
        "return_5": pytest.approx(12.25 / 11 - 1, abs=1e-6),
        "return_20": None,
    }
    assert explain(conn, -1, after=2) is None


@on_one_engine
def test_in_words(url: str, conn: Connection[TupleRow]) -> None:
    id_ = made(conn)
    conn.execute("update events set parameters = '{\"min_shadow\": 3}', late = false")
    told = run("explain", str(id_), "--after", "1", TICKSTOCK_DATABASE_URL=url)
    assert told.returncode == 0, told.stderr
    said = told.stdout
    assert re.search(rf"^event {id_} \(change \d+\): Hammer in AAPL, 1min candle of ", said)
    assert "2025-11-24 14:33, long" in said
    assert "\n  Lower shadow >= min_shadow * body" in said, "the definition"
    for line in (
        r"price +11",
        r"strength +0\.5 of 1",
        r"details +body = 0\.01",
        r"parameters +min_shadow = 3",
        r"recorded +\d{4}-\d\d-\d\d \d\d:\d\d, \d+ s after its candle \(feed's clock\)",
        r"on Redis +no: found before any scanner had a Redis",
        r"outcome +\+4\.55 % after 1, \+11\.36 % after 5 candles \(above 0: it was right\)",
        r" +-2  2025-11-24 14:31 +10\.25 +11\.00 +9\.75 +10\.50 +101",
        r" +0  2025-11-24 14:33 +10\.75 +11\.50 +10\.25 +11\.00 +103",
        r" +\+1  2025-11-24 14:34 +11\.25 +12\.00 +10\.75 +11\.50 +104",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), line
    assert "late" not in said
    assert "\x1b" not in said, "no colours into a pipe"
    assert len(re.findall("[█│]", said)) > 10, "the chart"


@on_one_engine
def test_numbers_are_told_to_their_last_digit(url: str, conn: Connection[TupleRow]) -> None:
    id_ = made(conn)
    conn.execute("update ohlcv_1min set close = 11.0025, volume = 12345678 where close = 11")
    conn.execute("update ohlcv_1min set low = 0.75, volume = 0.5 where close = 11.5")
    said = run("explain", str(id_), "--after", "1", TICKSTOCK_DATABASE_URL=url).stdout
    for line in (
        r" +0  2025-11-24 14:33 +10\.7500 +11\.5000 +10\.2500 +11\.0025 +12,345,678",
        r" +\+1  2025-11-24 14:34 +11\.2500 +12\.0000 +0\.7500 +11\.5000 +0\.5",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), said


@on_one_engine
def test_retracted_late_and_unknown(url: str, conn: Connection[TupleRow]) -> None:
    id_ = made(conn, pattern="Mine")
    ts = OPENING + 3 * MINUTE
    conn.execute("update events set late = true")
    record(conn, [], judged=[Span("AAPL", ts, ts)], asked=["Mine"])
    said = run("explain", str(id_), TICKSTOCK_DATABASE_URL=url).stdout
    assert "RETRACTED at " in said
    assert "late: the next candle was over" in said
    assert "(an unknown pattern)" in said
    assert "outcome" not in said


@on_one_engine
def test_whether_redis_has_it(conn: Connection[TupleRow]) -> None:
    conn.execute("call tickstock.begin_publishing()")
    id_ = made(conn)
    change = change_of(conn, "AAPL")
    for up_to, published in ((change - 1, False), (change, True)):
        conn.execute("update tickstock.publishing set up_to = %s", (up_to,))
        found = explain(conn, id_, after=0)
        assert found is not None
        assert found.event["published"] is published


@on_one_engine
def test_what_is_gone(url: str, conn: Connection[TupleRow]) -> None:
    id_ = made(conn)
    conn.execute("insert into ohlcv_1min values ('CLOCK', '2025-12-20', 1, 1, 1, 1, 1)")
    conn.execute("call drop_bars('2025-12-01')")
    told = run("explain", str(id_), TICKSTOCK_DATABASE_URL=url)
    assert told.returncode == 0, told.stderr
    assert "its candle is gone: the bars have been dropped" in told.stdout
    assert "outcome" not in told.stdout
    assert "start  " not in told.stdout


@on_one_engine
def test_what_a_person_writes_into_an_event_stays_an_object(
    url: str, conn: Connection[TupleRow]
) -> None:
    """Else neither it nor the chart of its symbol could be drawn; a list from before becomes one."""
    id_ = made(conn)
    for column in ("details", "parameters"):
        with pytest.raises(psycopg.errors.CheckViolation, match=f"events_{column}"):
            conn.execute(f"update events set {column} = '[1]'")
    conn.execute(
        "alter table events drop constraint events_details, drop constraint events_parameters"
    )
    conn.execute("update events set details = '[1]', parameters = 'true'")
    conn.execute((sqlfiles.sql_folder() / "migrations" / "021-events-are-objects.sql").read_text())
    told = run("explain", str(id_), TICKSTOCK_DATABASE_URL=url).stdout
    assert re.search(r"^details +value = \[1\]$", told, re.MULTILINE)
    assert re.search(r"^parameters +none$", told, re.MULTILINE)


@on_one_engine
def test_json(url: str, conn: Connection[TupleRow]) -> None:
    id_ = made(conn)
    told = json.loads(run("explain", str(id_), "--json", TICKSTOCK_DATABASE_URL=url).stdout)
    assert set(told) == {"event", "candles", "outcome", "definition"}
    assert told["event"]["id"] == id_
    assert told["event"]["ts"] == "2025-11-24T14:33:00Z"
    assert told["event"]["lag"] >= 0
    assert [each["close"] for each in told["candles"]] == CLOSES[1:9]
    assert told["definition"].startswith("After a fall")


@on_one_engine
def test_no_such_event(url: str) -> None:
    done = run("explain", "77", TICKSTOCK_DATABASE_URL=url)
    assert done.returncode == 1
    assert "there is no event 77" in done.stderr


def candle(place: int, open_: float, close: float) -> Candle:
    ts = datetime(2025, 11, 24, tzinfo=UTC) + place * MINUTE
    return Candle(place, ts, open_, max(open_, close) + 1, min(open_, close) - 1, close, 100)


def test_a_chart_shows_each_candle_where_it_is() -> None:
    drawn = chart([candle(n, 10 + n, 12 + n) for n in range(-5, 3)], width=80, colors=False)
    lines = drawn.splitlines()
    assert len(lines) == HEIGHT
    bodies = [[n for n, c in enumerate(line) if c == "█"] for line in lines]
    tops = {column: next(n for n, row in enumerate(bodies) if column in row)
            for row in bodies for column in row}  # fmt: skip
    columns = sorted(tops)
    assert len(columns) == 8, "a column for each candle"
    assert {b - a for a, b in itertools.pairwise(columns)} == {2}
    assert [tops[column] for column in columns] == sorted(tops.values(), reverse=True), "rising"
    assert lines[-1].split() == ["-5", "0", "+2"]
    assert "15.00" in drawn
    assert "4.00" in drawn


def test_a_chart_of_too_many_candles_shows_the_last() -> None:
    drawn = chart([candle(n, 10, 12) for n in range(-200, 1)], width=40, colors=False)
    assert max(map(len, drawn.splitlines())) <= 40
    assert drawn.splitlines()[-1].split()[-1] == "0"


def test_a_chart_has_colours_on_a_terminal() -> None:
    drawn = chart([candle(0, 10, 12), candle(1, 12, 10)], width=40, colors=True)
    assert "\x1b[38;5;2m" in drawn, "green: it rose"
    assert "\x1b[38;5;1m" in drawn, "red: it fell"


def test_one_candle_of_one_price_can_be_drawn() -> None:
    ts = datetime(2025, 11, 24, tzinfo=UTC)
    assert chart([Candle(0, ts, 10, 10, 10, 10, 100)], width=40, colors=False)
    with pytest.raises(ValueError, match="needs candles"):
        chart([], width=40, colors=False)
