"""What the feed left out is known, asked for, and asked for once."""

import gzip
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.feed.scripted_server import Peer, ScriptedServer
from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.embedded.redis import embedded_redis
from tickstock.feed.flatfiles import HEADER
from tickstock.simulator import Faults, Simulator

from .channel import Channel
from .hand_fed import OPENING, Event, bar, bars, hand_fed
from .hardship import market
from .program import DEADLINE, KEY, eventually, run, run_with_input, running, until
from .test_chaos import bars_in
from .test_load import flat_file

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

STORED = "select count(*) from ohlcv_1min"
LATEST = "select max(ts) >= %s from ohlcv_1min"
OWED = "select count(*) from tickstock.owed(%s)"
WAITS_FOR_A_LOCK = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and application_name = 'tickstock backfill' and wait_event_type = 'Lock'"
)
MIDNIGHT = OPENING + timedelta(hours=14.5)
MINUTE = timedelta(minutes=1)
START = OPENING + 16 * MINUTE
"""From here on the first stretch has covered."""
EMPTY = "select confirmed_empty from coverage('A') where session = 'regular'"
OWED_BEYOND = "select starts, ends from feed_gaps where symbol = %s and ends > %s"


def settings_for(url: str, simulator: Simulator) -> dict[str, str]:
    return {
        "TICKSTOCK_DATABASE_URL": url,
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_FEED_URL": simulator.url,
        "TICKSTOCK_REST_URL": simulator.rest_url,
    }


def truth(simulator: Simulator) -> dict[tuple[str, datetime], tuple[float, ...]]:
    return {key: tuple(map(float, bar[2:7])) for key, bar in simulator.truth().items()}


def test_the_next_ingest_fills_what_a_killed_one_missed(url: str) -> None:
    with Simulator(market(5, 120), keys=[KEY], closes=True, speed=1_200) as simulator:
        settings = settings_for(url, simulator)
        arguments = ("ingest", "--symbols", ",".join(sorted(symbols_of(simulator))))
        with running(*arguments, **settings) as ingest:
            until(url, LATEST, True, OPENING + timedelta(minutes=30))
            ingest.stop(signal.SIGKILL)
        assert simulator.finished.wait(DEADLINE)
        listed = run("gaps", "--json", **settings)
        assert {json.loads(line)["symbol"] for line in listed.stdout.splitlines()}
        with running(*arguments, **settings) as again:
            # The market is over: nothing comes live any more, REST knows it all.
            until(url, OWED, 0, MIDNIGHT)
            assert again.stop() == 0
        assert bars_in(url) == truth(simulator)


def test_a_plan_without_the_market_s_state_fills_by_the_feed_s_clock(url: str) -> None:
    faults = Faults({"rest_403": 1})
    with Simulator(market(5, 120), keys=[KEY], closes=True, speed=600, faults=faults) as simulator:
        settings = settings_for(url, simulator)
        arguments = ("ingest", "--symbols", "*")
        with running(*arguments, **settings) as ingest:
            until(url, LATEST, True, OPENING + timedelta(minutes=20))
            ingest.stop(signal.SIGKILL)
        with running(*arguments, **settings) as again:
            assert simulator.finished.wait(DEADLINE)
            until(url, OWED, 0, MIDNIGHT)
            assert again.stop() == 0
        assert bars_in(url) == truth(simulator)
        said = [line for line in again.errors if "does not tell its time" in line]
        assert len(said) == 1
        done = run("backfill", "*", "--from", "2025-11-24", "--to", "2025-11-24", **settings)
        assert done.returncode == 0, done.stderr
        assert "does not tell its time" in done.stderr


def symbols_of(simulator: Simulator) -> set[str]:
    return {
        symbol for minute in market(5, 120).minutes() for symbol in {b.symbol for b in minute.bars}
    }


def test_without_rest_ingest_goes_on_and_gaps_stay_owed(url: str) -> None:
    with Simulator(market(5, 60), keys=[KEY], closes=True, speed=1_200) as simulator:
        settings = settings_for(url, simulator) | {"TICKSTOCK_REST_URL": "http://127.0.0.1:9"}
        with running("ingest", "--symbols", "*", **settings) as ingest:
            assert simulator.finished.wait(DEADLINE)
            until(url, STORED, len(simulator.truth()))
            assert ingest.stop() == 0
        done = run("backfill", **settings)
        assert done.returncode == 6, done
        assert "Traceback" not in done.stderr
        listed = run("gaps", **settings)
        assert listed.returncode == 0
        assert "all symbols: 2025-11-24 14:30 to 2025-11-24 14:46, 16 minutes" in listed.stdout
        done = run("backfill", **settings_for(url, simulator))
        assert "nothing is owed" in done.stdout, done


def test_a_backfill_killed_in_the_middle_does_not_ask_again(
    url: str, conn: Connection[TupleRow]
) -> None:
    with Simulator(market(40, 60), keys=[KEY], closes=True, speed=3_600) as simulator:
        settings = settings_for(url, simulator)
        with running(
            "ingest", "--symbols", "*", **settings | {"TICKSTOCK_REST_URL": "http://127.0.0.1:9"}
        ) as ingest:
            assert simulator.finished.wait(DEADLINE)
            until(url, STORED, len(simulator.truth()))
            assert ingest.stop() == 0
        with running("backfill", **settings) as first:
            until(url, "select count(*) >= 5 from backfills", True)
            first.stop(signal.SIGKILL)
        told = fetch_value(conn, "select count(*) from backfills")
        before = simulator.requests
        done = run("backfill", **settings)
        assert "nothing is owed" in done.stdout, done
        # The market's state, who traded that day, and the symbols that are left.
        assert simulator.requests - before <= 2 + 40 - told + 1
        assert bars_in(url) == truth(simulator)
        # What was told of all symbols is not remembered for each of them.
        assert conn.execute("select distinct symbol from backfills").fetchall() == [("*",)]


def test_history_shows_what_the_stream_left_out_without_a_trace(url: str) -> None:
    faults = Faults({"gap": 0.05}, seed=1)
    with Simulator(
        market(10, 60), keys=[KEY], closes=True, speed=3_600, faults=faults
    ) as simulator:
        settings = settings_for(url, simulator)
        with running("ingest", "--symbols", "*", **settings) as ingest:
            assert simulator.finished.wait(DEADLINE)
            until(url, OWED, 0, MIDNIGHT)
            assert ingest.stop() == 0
        assert faults.counts["gap"] > 0
        done = run("backfill", "*", "--from", "2025-11-24", "--to", "2025-11-24", **settings)
        assert done.returncode == 0, done.stderr
        assert bars_in(url) == truth(simulator)


def test_the_day_s_file_settles_the_day(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    with Simulator(market(10, 60), keys=[KEY], closes=True, speed=3_600) as simulator:
        settings = settings_for(url, simulator) | {"TICKSTOCK_REST_URL": "http://127.0.0.1:9"}
        with running("ingest", "--symbols", "*", **settings) as ingest:
            until(url, LATEST, True, OPENING + timedelta(minutes=20))
            ingest.stop(signal.SIGKILL)
        assert simulator.finished.wait(DEADLINE)
        assert fetch_value(conn, OWED, MIDNIGHT) > 0
        file = tmp_path / "2025-11-24.csv.gz"
        with gzip.open(file, "wt") as out:
            out.write(",".join(HEADER) + "\n")
            for bar in simulator.truth().values():
                ns = int(bar.ts.timestamp()) * 10**9
                numbers = f"{bar.volume},{bar.open},{bar.close},{bar.high},{bar.low},{ns}"
                out.write(f"{bar.symbol},{numbers},{bar.trades}\n")
        done = run("backfill", "--file", str(file), **settings)
        assert done.returncode == 0, done.stderr
        assert fetch_value(conn, OWED, MIDNIGHT) == 0
        assert bars_in(url) == truth(simulator)
    rows = conn.execute("select symbol, starts, ends, source, settled from backfills").fetchall()
    assert rows == [("*", MIDNIGHT - timedelta(days=1), MIDNIGHT, file.name, True)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["A"], "history needs both"),
        (["--from", "2025-11-24"], "history needs both"),
        (["A", "--from", "2025-11-24", "--file", "x"], "not both"),
        (["A", "--from", "2025-11-25", "--to", "2025-11-24"], "--to is earlier"),
        (["--file", "/nowhere.csv"], "/nowhere.csv"),
    ],
)
def test_what_makes_no_sense_is_said(url: str, arguments: list[str], said: str) -> None:
    with Simulator(market(1, 5), keys=[KEY], closes=True) as simulator:
        done = run("backfill", *arguments, **settings_for(url, simulator))
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_the_subscription_follows_the_file_of_symbols(url: str, tmp_path: Path) -> None:
    file = tmp_path / "symbols"
    file.write_text("A  # the first\n")
    with Simulator(market(5, 390), keys=[KEY], closes=True, speed=600) as simulator:
        names = sorted(symbols_of(simulator))[:3]
        file.write_text(f"\ufeff{names[0]}  # the first\n")  # as some editors on Windows do
        settings = settings_for(url, simulator)
        with running("ingest", "--symbols-file", str(file), **settings) as ingest:
            until(url, "select array_agg(distinct symbol) from ohlcv_1min", names[:1])
            file.write_text("")
            ingest.await_error("names no ticker")
            file.write_text("\n".join(names[1:]))
            until(url, "select array_agg(distinct symbol order by symbol) from ohlcv_1min", names)
            first, *_, last = _counts(url, names), _counts(url, names)
            eventually(lambda: _counts(url, names)[1] > last[1] + 3, "the new ones go on")
            assert ingest.stop() == 0
        assert _counts(url, names)[0] <= first[0] + 1
    until(
        url,
        "select array_agg(array_to_string(symbols, ',') || ' ' || reason order by id) from feed_stretches",
        [f"{names[0]} the symbols were changed", f"{','.join(names[1:])} ingest was stopped"],
    )
    # So nothing is owed beyond them.
    until(url, "select bool_and(intended) from feed_stretches", True)


def _counts(url: str, names: list[str]) -> list[int]:
    stored = [symbol for symbol, _ in bars_in(url)]
    return [stored.count(name) for name in names]


def test_a_minute_is_complete_when_the_feed_s_clock_has_passed_it(
    url: str, conn: Connection[TupleRow]
) -> None:
    conn.execute("listen tickstock_minutes")
    with (
        embedded_redis() as redis_url,
        Channel(redis_url, "tickstock_minutes") as channel,
        hand_fed() as feed,
        running(
            "ingest", "--symbols", "*", "--feed-url", feed.url, "--redis-url", redis_url,
            TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY,
        ) as ingest,
    ):  # fmt: skip
        feed.send(*bars("A", range(2)), *bars("B", range(1)))
        feed.send(*bars("C", range(1, 3)))
        until(url, STORED, 5)
        feed.send(*bars("LATE", range(1)))
        until(url, STORED, 6)
        messages = channel.await_messages(2)
        assert ingest.stop() == 0
    minute = ["2025-11-24T14:30:00Z", "2025-11-24T14:31:00Z"]
    for message in messages:
        told_at = datetime.fromisoformat(message["minute"]) + timedelta(
            seconds=60 + message.pop("lag")
        )
        assert abs(datetime.now(UTC) - told_at) < timedelta(minutes=5), "by the clock on the wall"
    assert messages == [{"minute": minute[0], "bars": 2}, {"minute": minute[1], "bars": 2}]
    told = [json.loads(notice.payload) for notice in conn.notifies(timeout=5, stop_after=2)]
    assert [(each["minute"], each["bars"]) for each in told] == [(minute[0], 2), (minute[1], 2)]
    lags = conn.execute(
        "select extract(epoch from completed_at - ts) - 60 from minutes_complete"
    ).fetchall()
    assert [each["lag"] for each in told] == pytest.approx([float(lag) for (lag,) in lags], abs=60)
    rows = conn.execute("select ts, bars from minutes_complete order by ts").fetchall()
    assert rows == [
        (datetime(2025, 11, 24, 14, 30, tzinfo=UTC), 2),
        (datetime(2025, 11, 24, 14, 31, tzinfo=UTC), 2),
    ]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_minute_at_which_the_feed_was_lost_is_complete_once(
    url: str, conn: Connection[TupleRow], restarted: bool
) -> None:
    """Whether its bars came before that, or on both sides."""
    parts = [
        [*bars("A", range(2)), bar("B", 0)],
        [bar("B", 1), bar("A", 2), bar("B", 2)],
        bars("A", range(3, 5)),
    ]

    def script(events: list[Event]) -> Callable[[Peer], None]:
        def play(peer: Peer) -> None:
            peer.serve()
            peer.send(events)
            if not restarted and events is not parts[-1]:
                peer.hang_up()
            peer.stay()

        return play

    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with ScriptedServer(*map(script, parts)) as server:
        arguments = ("ingest", "--symbols", "A,B", "--feed-url", server.url)
        stored = [3, 6, 8] if restarted else [8]
        for number in stored:
            with running(*arguments, **settings) as ingest:
                until(url, STORED, number)
                assert ingest.stop() == 0
    complete = conn.execute("select ts, stretch, bars from minutes_complete order by ts").fetchall()
    assert complete == [
        (OPENING + minute * MINUTE, stretch, number)
        for minute, (stretch, number) in enumerate([(1, 2), (2, 2), (3, 2), (3, 1)])
    ]


def test_who_stays_subscribed_misses_nothing_when_other_symbols_change(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    file = tmp_path / "symbols"
    lists = (["A", "B"], ["A", "C"], ["A", "C", "D"])
    file.write_text("\n".join(lists[0]))
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        running(
            "ingest", "--symbols-file", str(file), "--feed-url", feed.url, **settings
        ) as ingest,
    ):
        # No stretch is long enough to have covered anything by itself.
        for number, symbols in enumerate(lists):
            file.write_text("\n".join(symbols))
            until(url, "select array_agg(symbols) from feed_live where alive", [symbols])
            assert number == 0 or not conn.execute(OWED_BEYOND, ("A", START)).fetchall()
            minutes = range(20 * number, 20 * (number + 1))
            feed.send(*[event for symbol in symbols for event in bars(symbol, minutes)])
            until(url, "select max(ts) from ohlcv_1min", OPENING + minutes[-1] * MINUTE)
        assert not conn.execute(OWED_BEYOND, ("A", START)).fetchall()
        # C and D were subscribed later, and B no more: of these something may be missing.
        assert {"B", "C", "D"} <= {row[0] for row in conn.execute("select symbol from feed_gaps")}
        assert fetch_value(conn, EMPTY) == 0
        conn.execute("delete from ohlcv_1min where symbol = 'A' and ts = %s", (START + 5 * MINUTE,))
        assert fetch_value(conn, EMPTY) == 1
        assert ingest.stop() == 0
    complete = conn.execute("select ts, bars from minutes_complete order by ts").fetchall()
    assert complete == [
        (OPENING + minute * MINUTE, len(lists[minute // 20])) for minute in range(59)
    ]


def test_a_day_s_file_from_standard_input(url: str, conn: Connection[TupleRow]) -> None:
    bar = Bar("A", OPENING, 2, 3, 1, 2, 100, None, 5)
    done = run_with_input(flat_file([bar]), "backfill", "--file", "-", TICKSTOCK_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2025-11-24, all symbols: 1 bar = 1 new")
    rows = conn.execute("select symbol, starts, ends, source, settled from backfills").fetchall()
    assert rows == [("*", MIDNIGHT - timedelta(days=1), MIDNIGHT, "stdin", True)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_filling_from_files(
    url: str, conn: Connection[TupleRow], tmp_path: Path, number: signal.Signals
) -> None:
    files = [tmp_path / name for name in ("first.csv", "second.csv")]
    for file, symbol in zip(files, ("A", "B"), strict=True):
        file.write_bytes(flat_file([Bar(symbol, OPENING, 2, 3, 1, 2, 100, None, 5)]))
    arguments = [argument for file in files for argument in ("--file", str(file))]
    with running("backfill", *arguments, TICKSTOCK_DATABASE_URL=url) as backfill:
        with conn.transaction():
            conn.execute("lock table ohlcv_1min in exclusive mode")
            until(url, WAITS_FOR_A_LOCK, 1)
            backfill.send(number)
        assert backfill.wait() == 1
        assert f"stopped before the end of {files[0]}" in backfill.errors[-1]
    assert fetch_value(conn, STORED) == 0
    assert fetch_value(conn, "select count(*) from backfills") == 0


@pytest.mark.parametrize("channel", ["AM", "A"])
def test_what_came_and_was_no_bar_is_owed(
    url: str, conn: Connection[TupleRow], channel: str
) -> None:
    """Not "confirmed empty": somebody traded in these minutes, and REST may tell it properly."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("ingest", "--symbols", "*", "--channel", channel)
    events = [bar("A", minute) if channel == "AM" else second("A", minute) for minute in range(60)]
    events[30]["v"] = "many"
    events[31] |= {"h": 1, "l": 2} if channel == "AM" else {"o": None}
    nonsense = [{**events[32], "s": start, "v": None} for start in (-60_000, 0, 4_000_000_020_000)]
    with hand_fed() as feed, running(*arguments, "--feed-url", feed.url, **settings) as ingest:
        feed.send(*events[:40], *nonsense)
        feed.send(*events[40:])
        until(url, "select max(ts) >= %s from ohlcv_1min", True, OPENING + 57 * MINUTE)
        gaps = conn.execute(OWED_BEYOND, ("A", START)).fetchall()
        assert ingest.stop() == 0
    assert gaps == [(OPENING + 30 * MINUTE, OPENING + 32 * MINUTE)]
    assert fetch_value(conn, EMPTY) == 0


def second(symbol: str, minute: int) -> Event:
    event = bar(symbol, minute)
    return {**event, "ev": "A", "e": event["s"] + 1_000}


def test_a_stretch_does_not_begin_with_a_bar_that_is_hours_late(
    url: str, conn: Connection[TupleRow]
) -> None:
    """After an outage, the first to come is the correction of a minute in the midst of it."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        with conn.transaction():
            before = "select tickstock.open_stretch(%s, 'AM', null)"
            stretch = fetch_value(conn, before, feed.url)
            reach = (OPENING, OPENING + 40 * MINUTE)
            conn.execute("select tickstock.extend_stretch(%s, %s, %s, 41)", (stretch, *reach))
            conn.execute("select tickstock.close_stretch(%s, 'lost', false)", (stretch,))
        with running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest:
            feed.send(bar("A", 100))
            until(url, STORED, 1)
            feed.send(bar("A", 90), bar("A", 110), *bars("A", range(200, 240)))
            until(url, STORED, 43)
            gaps = conn.execute("select starts, ends from feed_gaps order by starts").fetchall()
            assert ingest.stop() == 0
    reached = [(0, 16), (25, 216)]
    assert gaps == [tuple(OPENING + minute * MINUTE for minute in gap) for gap in reached]
