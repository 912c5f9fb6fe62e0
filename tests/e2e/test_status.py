"""`tickstock status` beside a running ingest."""

import json
import re
from datetime import timedelta

import pytest

from .hand_fed import OPENING, bars, hand_fed
from .program import DEADLINE, KEY, run, running, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


def test_status_tells_people_and_programs_the_same(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "A,B,C", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            feed.send(*bars("A", range(8)), *bars("B", range(6)))
            until(url, "select count(*) from ohlcv_1min", 14)
            told = json.loads(run("status", "--symbols", "*", "--json", **settings).stdout)
            text = run("status", "--symbols", "A, B", **settings).stdout
            feed.end()
            until(url, "select subscriptions from feed_status", 0)
            lost = run("status", **settings).stdout
            assert ingest.stop() == 0
        after = run("status", **settings).stdout
    overall = told["overall"]
    assert overall["feed_clock"] == (OPENING + timedelta(minutes=8)).isoformat().replace(
        "+00:00", "Z"
    )
    assert overall["lag"] > 86_400
    assert (overall["subscriptions"], overall["symbols"]) == (1, 3)
    assert [(row["symbol"], row["lag"], row["bars"]) for row in told["symbols"]] == [
        ("A", 0, 8),
        ("B", 120, 6),
        ("C", None, 0),
    ]
    assert "2025-11-24 14:38, " in text.splitlines()[0]
    assert "live subscriptions      1, of 3 symbols" in text
    assert [line.split()[:6] for line in text.splitlines()[-2:]] == [
        ["A", "2025-11-24", "14:37", "0", "s", "8"],
        ["B", "2025-11-24", "14:35", "2", "min", "6"],
    ]
    assert (overall["frames_waiting"], overall["spilled_bytes"]) == (0, 0)
    assert 0 < overall["stored_after"] < DEADLINE
    assert re.search(
        r"^waits in ingest         0 frames, stored [\d.]+ s after receipt", text, re.MULTILINE
    )
    for told_of_none in (lost, after):
        assert "live subscriptions      none: no ingest is subscribed" in told_of_none
    assert "waits in ingest         unknown: no live subscription" in after
    assert "symbol" not in after


@pytest.mark.parametrize("symbols", ["", " , "])
def test_a_list_without_a_symbol_is_told(url: str, symbols: str) -> None:
    done = run("status", "--symbols", symbols, TICKSTOCK_DATABASE_URL=url)
    assert done.returncode == 2
    assert f"--symbols {symbols!r} names no ticker" in done.stderr
