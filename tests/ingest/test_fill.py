"""The filler beside ingest: newest first, no symbol stops another, and no call without need."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import eventually
from tests.feed.client_run import KEY
from tests.feed.http_server import Reply
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import write_bars
from tickstock.errors import RestUnavailableError
from tickstock.feed.backoff import Backoff
from tickstock.feed.rest import RestClient
from tickstock.ingest.fill import Filler, Gap, ask_each

from .choosy_rest import BARS, REFUSALS, STATUS, ChoosyRest, lose

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

MONDAY = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
LATER = MONDAY + timedelta(days=1)
MINUTE = timedelta(minutes=1)
LOOKS = """
select query_start from pg_stat_activity
where datname = current_database() and application_name = 'tickstock fill'
"""
OWED = "select coalesce(array_agg(symbol order by symbol), '{}') from tickstock.owed(%s)"


@contextmanager
def filling(
    url: str,
    rest: ChoosyRest,
    *,
    feed: str = "ws://x",
    every: float = 0.01,
    ask_again: float = 1000,
) -> Iterator[Filler]:
    stop = threading.Event()
    client = RestClient(rest.url, KEY, stop=stop, tries=2, backoff=Backoff(0.001, 0.001))
    filler = Filler(url, client, stop, feed=feed, every=every, ask_again=ask_again)
    filler.start()
    try:
        yield filler
    finally:
        stop.set()
        filler.join()
        client.close()


def owes(conn: Connection[TupleRow], *symbols: str) -> None:
    """Wait until nothing but these is owed."""
    eventually(lambda: fetch_value(conn, OWED, LATER) == list(symbols), f"{symbols} are owed")


def told(conn: Connection[TupleRow], symbol: str, starts: datetime, ends: datetime) -> None:
    """Another source has told this stretch for good."""
    conn.execute("select tickstock.settle(%s, %s, %s, %s, 'test', 0)", (symbol, starts, ends, ends))


def await_looks(conn: Connection[TupleRow]) -> None:
    """Wait until the filler has asked the database some times more."""
    seen: set[object] = set()

    def looked() -> bool:
        seen.update(conn.execute(LOOKS).fetchall())
        return len(seen) > 10

    eventually(looked, "it looks again and again")


def stays_owed(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "stays owed" in message]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_symbol_that_is_refused_does_not_stop_the_others(
    url: str, conn: Connection[TupleRow], refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    lose(conn, ["A", "BAD", "Z"], MONDAY, MONDAY + 5 * MINUTE)
    with ChoosyRest(LATER, refused={"BAD": REFUSALS[refusal]}) as rest, filling(url, rest):
        owes(conn, "BAD")
        eventually(lambda: stays_owed(caplog), "it is said")
        asked = rest.count(BARS)
        await_looks(conn)
        assert rest.count(BARS) == asked
    [said] = stays_owed(caplog)
    assert said.startswith("BAD from 2025-11-24 15:00 to 2025-11-24 15:06 UTC stays owed")


def test_what_was_refused_is_asked_again_later(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    lose(conn, ["BAD"], MONDAY, MONDAY + 5 * MINUTE)
    rest = ChoosyRest(LATER, refused={"BAD": REFUSALS["not in the plan"]})
    with rest, filling(url, rest, ask_again=0.02):
        eventually(lambda: rest.count(BARS) > 2, "it is asked again")
        rest.refused.clear()
        owes(conn)
    assert len(stays_owed(caplog)) == 1


def test_of_all_symbols_only_those_that_were_refused_are_asked_again(
    url: str, conn: Connection[TupleRow]
) -> None:
    lose(conn, None, MONDAY, MONDAY + 5 * MINUTE)
    refused = {"BAD": REFUSALS["not found"]}
    with ChoosyRest(LATER, traded=["A", "BAD", "Z"], refused=refused) as rest:
        with filling(url, rest, ask_again=0.02):
            eventually(lambda: rest.symbols[:5] == ["A", "BAD", "Z", "BAD", "BAD"], "BAD again")
            owes(conn, "*")
            rest.refused.clear()
            owes(conn)
        assert rest.symbols.count("A") == rest.symbols.count("Z") == 1


def test_a_wrong_key_is_final(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    lose(conn, ["A", "Z"], MONDAY, MONDAY + 5 * MINUTE)
    with (
        ChoosyRest(LATER, refused={"Z": Reply(401, {"error": "Unknown API Key"})}) as rest,
        filling(url, rest) as filler,
    ):
        eventually(lambda: not filler.is_alive(), "it has ended")
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR]


def refused_time(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "does not tell its time" in message]


def test_a_plan_without_the_time_is_filled_by_the_clock_on_the_wall(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    now = fetch_value(conn, "select date_trunc('minute', clock_timestamp())")
    starts = now - 31 * MINUTE
    lose(conn, ["A"], starts - 60 * MINUTE, starts)
    with ChoosyRest(LATER, refused={}) as rest:
        rest.refuses_status = True
        with filling(url, rest, feed="wss://delayed.massive.com/stocks") as filler:
            eventually(lambda: fetch_value(conn, OWED, now) == [], "it is told")
            lose(conn, ["B"], starts - 60 * MINUTE, starts)
            eventually(lambda: fetch_value(conn, OWED, now) == [], "so is the next")
            assert filler.is_alive()
    assert (rest.symbols, rest.count(STATUS), len(refused_time(caplog))) == (["A", "B"], 1, 1)
    settled = fetch_value(conn, "select max(ends) from backfills where settled")
    # The feed's delay, and how late bars may be.
    assert settled <= fetch_value(conn, "select clock_timestamp() - interval '30 minutes'")


def test_a_plan_without_the_time_is_filled_by_the_clock_of_another_feed(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    lose(conn, ["A"], MONDAY, MONDAY + 5 * MINUTE)
    with ChoosyRest(LATER, refused={}) as rest:
        rest.refuses_status = True
        with filling(url, rest) as filler:
            eventually(lambda: refused_time(caplog), "it is said")
            await_looks(conn)
            assert rest.count(BARS) == 0, "the feed has no time yet"
            assert filler.is_alive()
            later = MONDAY + 60 * MINUTE
            write_bars(conn, [Bar("A", later, 1, 1, 1, 1, 1)], source="test")
            owes(conn)
    assert (rest.symbols, rest.count(STATUS), len(refused_time(caplog))) == (["A"], 1, 1)


def test_a_time_that_is_none_does_not_end_the_filling(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    lose(conn, ["A"], MONDAY, MONDAY + 5 * MINUTE)
    write_bars(conn, [Bar("A", MONDAY + 60 * MINUTE, 1, 1, 1, 1, 1)], source="test")
    with ChoosyRest(LATER, refused={}) as rest:
        rest.time = "soon"
        with filling(url, rest):
            owes(conn)
    assert rest.symbols == ["A"]
    assert "Traceback" not in caplog.text


def test_nothing_is_asked_while_nothing_is_owed(url: str, conn: Connection[TupleRow]) -> None:
    with ChoosyRest(LATER, refused={}) as rest, filling(url, rest):
        await_looks(conn)
        assert rest.requests == []
        lose(conn, ["A"], MONDAY, MONDAY + 5 * MINUTE)
        owes(conn)
        await_looks(conn)
        assert (rest.count(STATUS), rest.symbols) == (1, ["A"])


def test_a_gap_that_appears_does_not_wait_for_a_long_old_one(
    url: str, conn: Connection[TupleRow]
) -> None:
    lose(conn, None, MONDAY, MONDAY + 5 * MINUTE)
    traded = [f"S{number}" for number in range(9)]
    fresh = LATER + 5 * timedelta(hours=1)

    def appear(symbol: str) -> None:
        if symbol == "S3":
            with connect(url, program="test") as other:
                lose(other, ["NEW"], fresh, fresh + 5 * MINUTE)

    with ChoosyRest(LATER + timedelta(days=1), traded=traded, refused={}) as rest:
        rest.on_bars = appear
        with filling(url, rest, every=0.0001):
            owes(conn)
    assert rest.symbols == [*traded[:4], "NEW", *traded[4:]]


def test_each_gap_is_asked_for_newest_first(url: str, conn: Connection[TupleRow]) -> None:
    old = MONDAY - timedelta(days=40)
    for starts in (old, MONDAY, MONDAY + 60 * MINUTE):
        lose(conn, ["A", "B"], starts, starts + 5 * MINUTE)
    for symbol in ("A", "B"):
        told(conn, symbol, old + 6 * MINUTE, MONDAY)
        told(conn, symbol, MONDAY + 6 * MINUTE, MONDAY + 60 * MINUTE)
    refused = {"B": REFUSALS["not in the plan"]}
    with ChoosyRest(LATER, refused=refused) as rest, filling(url, rest):
        owes(conn, "B", "B", "B")
        eventually(lambda: len(rest.asked) == 4, "all are asked for")
    # The two of one day together.
    assert rest.asked == [("A", MONDAY), ("B", MONDAY), ("A", old), ("B", old)]


def test_a_long_gap_is_asked_for_in_pieces(url: str, conn: Connection[TupleRow]) -> None:
    first, second = (MONDAY - timedelta(days=days) for days in (100, 40))
    for starts in (first, MONDAY):
        lose(conn, ["A"], starts, starts + 5 * MINUTE)
    with ChoosyRest(LATER, refused={}) as rest:
        rest.on_bars = lambda _: rest.refused.update(
            {"A": REFUSALS["not in the plan"]} if len(rest.asked) > 1 else {}
        )
        with filling(url, rest):
            owes(conn, "A")
            eventually(lambda: len(rest.asked) == 2, "both are asked for")
    assert rest.asked == [("A", second), ("A", first)]
    rows = conn.execute("select starts, ends from tickstock.owed(%s)", (LATER,)).fetchall()
    assert rows == [(first, second)]


def test_days_without_trading_are_not_asked_for(url: str, conn: Connection[TupleRow]) -> None:
    for starts in (MONDAY - timedelta(days=3), MONDAY):
        lose(conn, None, starts, starts + 5 * MINUTE)
    with ChoosyRest(LATER, traded=["A"], refused={}) as rest, filling(url, rest):
        owes(conn)
        assert rest.days() == ["2025-11-24", "2025-11-21"]


def test_who_had_a_bar_in_the_week_before_may_have_traded(
    url: str, conn: Connection[TupleRow]
) -> None:
    """Who trades only before the opening is in no list of the day's traders."""
    bars = [
        Bar(symbol, MONDAY - timedelta(days=days), 1, 1, 1, 1, 1)
        for symbol, days in (("EARLY", 6), ("GONE", 8))
    ]
    write_bars(conn, bars, source="test")
    lose(conn, None, MONDAY, MONDAY + 5 * MINUTE)
    with ChoosyRest(LATER, traded=["A"], refused={}) as rest, filling(url, rest):
        owes(conn)
    assert rest.symbols == ["A", "EARLY"]


def test_a_minute_is_final_when_it_can_not_change_any_more(
    url: str, conn: Connection[TupleRow]
) -> None:
    """A bar is known when its minute is over, and may change for a quarter of an hour from then on."""
    gap = Gap("A", MONDAY, MONDAY + 15 * MINUTE)
    with ChoosyRest(LATER, refused={}) as rest:
        client = RestClient(rest.url, KEY, stop=threading.Event())
        for seconds, settled in ((59, 0), (60, 1), (119, 1)):
            conn.execute("truncate backfills")
            clock = MONDAY + 15 * MINUTE + timedelta(seconds=seconds)
            ask_each(conn, client, [gap], clock)
            found = fetch_value(conn, "select max(ends) from backfills where settled")
            assert found == (MONDAY + settled * MINUTE if settled else None)
        client.close()


def test_pages_that_came_before_it_vanished_are_counted_and_kept(
    url: str, conn: Connection[TupleRow]
) -> None:
    """And none of it is asked for again but the rest."""
    bar = {"t": int(MONDAY.timestamp()) * 1000, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    gaps = [Gap(symbol, MONDAY, MONDAY + 5 * MINUTE) for symbol in ("A", "B")]
    lose(conn, ["A", "B"], MONDAY, MONDAY + 4 * MINUTE)
    with ChoosyRest(LATER, refused={}) as rest:
        more = f"{rest.url}{BARS}A/range/1/minute/0/1?cursor=x"
        rest.refused["A"] = Reply(content={"ticker": "A", "results": [bar], "next_url": more})

        def vanish(_: str) -> None:
            if len(rest.requests) > 1:
                rest.refused["A"] = Reply(content={}, cut=1)
                rest.vanish()

        rest.on_bars = vanish
        backoff = Backoff(0.001, 0.001)
        client = RestClient(rest.url, KEY, stop=threading.Event(), tries=3, backoff=backoff)
        filled = ask_each(conn, client, gaps, LATER)
        client.close()
    assert filled.counts.inserted == filled.counts.received == 1
    assert (filled.failures, filled.left) == ([], gaps)
    assert isinstance(filled.ended, RestUnavailableError)
    owed = conn.execute("select symbol, starts from tickstock.owed(%s) order by 1", (LATER,))
    assert owed.fetchall() == [("A", MONDAY + MINUTE), ("B", MONDAY)]
