"""`tickstock backfill` where REST refuses some symbols: the others are filled, and it says which failed."""

import json
import os
import pty
import select
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.feed.http_server import Reply
from tests.ingest.choosy_rest import REFUSALS, ChoosyRest, lose
from tickstock.db.connection import fetch_value

from .program import DEADLINE, KEY, command, environment, run

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

MONDAY = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
ENDS = MONDAY + timedelta(minutes=6)
LATER = MONDAY + timedelta(days=1)
OWED = "select array_agg(symbol order by symbol) from tickstock.owed(%s)"
HISTORY = ("backfill", "A", "BAD", "WORSE", "Z", "--from", "2025-11-24", "--to", "2025-11-24")
HISTORY_TO_VANISH = ["backfill", "A", "BAD", "C", "D", *HISTORY[-4:]]


def settings(url: str, rest: ChoosyRest) -> dict[str, str]:
    return {
        "TICKSTOCK_DATABASE_URL": url,
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_FEED_URL": "ws://127.0.0.1:9",
        "TICKSTOCK_REST_URL": rest.url,
    }


def lose_minutes(conn: Connection[TupleRow], symbols: list[str] | None) -> None:
    lose(conn, symbols, MONDAY, ENDS - timedelta(minutes=1))


def test_what_is_owed_of_the_others_is_filled(url: str, conn: Connection[TupleRow]) -> None:
    lose_minutes(conn, ["A", "BAD", "WORSE", "Z"])
    refused = {"BAD": REFUSALS["not found"], "WORSE": REFUSALS["not in the plan"]}
    with ChoosyRest(LATER, refused=refused) as rest:
        done = run("backfill", **settings(url, rest))
        assert done.returncode == 1
        span = "from 2025-11-24 15:00 to 2025-11-24 15:06 UTC"
        assert f"not filled: BAD {span}: {rest.url}/v2/aggs/ticker/BAD/" in done.stderr
        assert "answers 404 (no such ticker)" in done.stderr
        assert f"not filled: WORSE {span}: {rest.url}/v2/aggs/ticker/WORSE/" in done.stderr
        assert "2 of the requests failed" in done.stderr
        assert "2 gaps still owed" in done.stdout
        assert fetch_value(conn, OWED, LATER) == ["BAD", "WORSE"]
        told = run("backfill", "--json", **settings(url, rest))
        failed = json.loads(told.stdout)["failed"]
        assert [each["symbol"] for each in failed] == ["BAD", "WORSE"]
        assert failed[0]["starts"] == MONDAY.isoformat()
        assert "404" in failed[0]["reason"]
        rest.refused.clear()
        again = run("backfill", **settings(url, rest))
    assert again.returncode == 0, again.stderr
    assert "nothing is owed" in again.stdout


def test_of_all_symbols_the_others_are_told(url: str, conn: Connection[TupleRow]) -> None:
    lose_minutes(conn, None)
    refused = {"BAD": REFUSALS["of another symbol"]}
    with ChoosyRest(LATER, traded=["A", "BAD", "Z"], refused=refused) as rest:
        done = run("backfill", **settings(url, rest))
        assert done.returncode == 1
        assert "not filled: BAD from 2025-11-24 15:00" in done.stderr
        assert "1 gap still owed" in done.stdout
        rest.refused.clear()
        again = run("backfill", **settings(url, rest))
    assert again.returncode == 0, again.stderr
    assert rest.symbols == ["A", "BAD", "Z", "BAD"]


def test_history_of_the_others_is_filled(url: str, conn: Connection[TupleRow]) -> None:
    refused = {"BAD": REFUSALS["not in the plan"], "WORSE": REFUSALS["not in the plan"]}
    with ChoosyRest(LATER + timedelta(days=1), refused=refused) as rest:
        done = run(*HISTORY, **settings(url, rest))
    # As ever when the plan refuses.
    assert done.returncode == 5
    assert [line.split()[2] for line in done.stderr.splitlines() if "not filled" in line] == [
        "BAD",
        "WORSE",
    ]
    told = fetch_value(conn, "select array_agg(symbol order by symbol) from backfills")
    assert told == ["A", "Z"]


def test_history_is_not_scanned(url: str, conn: Connection[TupleRow]) -> None:
    """An event of a year ago is no news."""
    bar = {"t": int(MONDAY.timestamp()) * 1000, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    answer = Reply(content={"ticker": "A", "results": [bar]})
    with ChoosyRest(LATER + timedelta(days=1), refused={"A": answer}) as rest:
        done = run("backfill", "A", *HISTORY[-4:], **settings(url, rest))
        assert done.returncode == 0, done.stderr
    assert fetch_value(conn, "select count(*) from ohlcv_1min") == 1
    assert fetch_value(conn, "select count(*) from tickstock.scan_queue") == 0


def test_history_up_to_the_last_day_of_the_calendar(url: str, conn: Connection[TupleRow]) -> None:
    with ChoosyRest(LATER, refused={}) as rest:
        done = run("backfill", "A", *HISTORY[-4:-1], "9999-12-31", **settings(url, rest))
        assert done.returncode == 0, done.stderr
    assert rest.symbols == ["A"]


def test_a_wrong_key_ends_it_at_once(url: str, conn: Connection[TupleRow]) -> None:
    lose_minutes(conn, ["A", "Z"])
    with ChoosyRest(LATER, refused={"A": Reply(401, {"error": "Unknown API Key"})}) as rest:
        done = run("backfill", **settings(url, rest))
    assert (done.returncode, rest.symbols) == (5, ["A"])
    assert "not asked to the end: A from 2025-11-24 15:00" in done.stderr
    assert "Unknown API Key" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["backfill"], HISTORY_TO_VANISH], ids=["owed", "history"])
def test_one_that_vanishes_midway(
    url: str, conn: Connection[TupleRow], arguments: list[str]
) -> None:
    """What was told is counted and kept; what failed, and what was not asked any more, is listed."""
    lose_minutes(conn, ["A", "BAD", "C", "D"])
    bar = {"t": int(MONDAY.timestamp()) * 1000, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    told = {
        "A": Reply(content={"ticker": "A", "results": [bar]}),
        "BAD": REFUSALS["not found"],
        "C": Reply(content={}, cut=1),
    }
    with ChoosyRest(LATER, refused=told) as rest:
        rest.on_bars = lambda symbol: rest.vanish() if symbol == "C" else None
        done = run(*arguments, **settings(url, rest))
    assert done.returncode == 6
    lines = done.stderr.splitlines()
    assert [line.split(" from ")[0] for line in lines if line.startswith("not ")] == [
        "not filled: BAD",
        "not asked to the end: C",
        "not asked to the end: D",
    ]
    assert "cannot be reached" in lines[-1]
    assert "Bars received so far are kept, and the same command asks for the rest" in lines[-1]
    assert "1 bar = 1 new" in done.stdout
    assert ("3 gaps still owed" in done.stdout) == (arguments == ["backfill"])
    assert fetch_value(conn, OWED, LATER) == ["BAD", "C", "D"]


def test_one_that_vanishes_is_told_to_programs(url: str, conn: Connection[TupleRow]) -> None:
    lose_minutes(conn, None)
    refused = {"BAD": REFUSALS["not found"], "C": Reply(content={}, cut=1)}
    with ChoosyRest(LATER, traded=["A", "BAD", "C", "D"], refused=refused) as rest:
        rest.on_bars = lambda symbol: rest.vanish() if symbol == "C" else None
        done = run("backfill", "--json", **settings(url, rest))
    assert done.returncode == 6
    told = json.loads(done.stdout)
    assert [each["symbol"] for each in told["failed"]] == ["BAD"]
    assert [each["symbol"] for each in told["not_asked"]] == ["C", "D"]
    assert told["still_owed"] == 1
    assert fetch_value(conn, OWED, LATER) == ["*"]


def test_many_failures_are_not_all_listed(url: str, conn: Connection[TupleRow]) -> None:
    names = [f"S{number}" for number in range(25)]
    lose_minutes(conn, names)
    with ChoosyRest(LATER, refused=dict.fromkeys(names, REFUSALS["not found"])) as rest:
        done = run("backfill", **settings(url, rest))
    assert done.stderr.count("not filled: S") == 20
    assert "not filled: 5 more" in done.stderr
    assert rest.symbols == sorted(names)


def test_at_a_terminal_it_shows_how_far_it_is(url: str, conn: Connection[TupleRow]) -> None:
    lose_minutes(conn, None)
    ours, its = pty.openpty()
    with (
        ChoosyRest(LATER, traded=["A", "B", "C", "D"], refused={}) as rest,
        os.fdopen(ours, "rb", buffering=0) as terminal,
    ):
        backfill = subprocess.Popen(
            command("backfill"),
            env=environment(**settings(url, rest)),
            stdout=subprocess.DEVNULL,
            stderr=its,
        )
        os.close(its)
        shown = ""
        deadline = time.monotonic() + DEADLINE
        while "4/4" not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += terminal.read(4096).decode()
        assert backfill.wait(DEADLINE) == 0
    assert "gaps" in shown
