"""The vendor's REST API as tickstock asks it, against the simulator's: equal to its truth."""

import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from massive import RESTClient

from tickstock.bars import Bar
from tickstock.errors import RestAnswerError, RestRefusedError, TickstockError
from tickstock.feed.backoff import Backoff
from tickstock.feed.http import StoppedError
from tickstock.feed.rest import (
    DEFAULT_URL,
    Page,
    RestClient,
    log_market_now,
    market_now,
    url_beside,
)
from tickstock.simulator import Faults, RandomMarket, Simulator
from tickstock.simulator.market import Market
from tickstock.simulator.rest import market_status

from .client_run import KEY
from .http_server import HttpServer, Reply


def simulator() -> Simulator:
    start = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
    market = RandomMarket(1, start=start, end=start + timedelta(minutes=1))
    return Simulator(market, keys=[KEY], speed=float("inf"), wait_for_subscriber=False)


def test_the_market_is_closed_before_its_first_minute_and_open_in_the_session() -> None:
    assert market_status(None)["market"] == "closed"
    with simulator() as feed:
        assert feed.finished.wait(10)
        now = market_now(feed.rest_url, KEY)
    assert now.market == "open"
    assert now.server_time
    assert datetime.fromisoformat(now.server_time) == datetime(2025, 11, 24, 15, 0, tzinfo=UTC)


def test_the_vendors_own_client_asks_the_simulator() -> None:
    with simulator() as feed:
        assert feed.finished.wait(10)
        status = RESTClient(KEY, base=feed.rest_url).get_market_status()
    assert (status.market, status.exchanges.nyse, status.after_hours) == ("open", "open", False)


@given(st.integers(0, 24 * 60 - 1))
def test_the_hours_are_new_yorks(minute: int) -> None:
    winter = datetime(2025, 1, 15, 5, 0, tzinfo=UTC) + timedelta(minutes=minute)
    summer = datetime(2025, 7, 15, 4, 0, tzinfo=UTC) + timedelta(minutes=minute)
    wanted = "closed"
    if 570 <= minute < 960:
        wanted = "open"
    elif 240 <= minute < 1200:
        wanted = "extended-hours"
    assert market_status(winter)["market"] == market_status(summer)["market"] == wanted


@pytest.mark.parametrize("path", ["", "/v1/elsewhere"])
def test_what_goes_wrong_is_told_without_the_key(
    path: str, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with simulator() as feed:
        url = feed.rest_url + path
        with pytest.raises(TickstockError, match=r"answers 40[14].*TICKSTOCK_REST_URL") as refused:
            market_now(url, "wrong-" + KEY)
    with pytest.raises(TickstockError, match="cannot be reached") as absent:
        market_now(f"http://127.0.0.1:{closed_port}", KEY)
    assert KEY not in str(refused.value) + str(absent.value)
    with caplog.at_level(logging.WARNING):
        log_market_now(url, KEY).join(10)
    assert "ingest goes on" in caplog.text
    assert KEY not in caplog.text


def test_only_the_vendors_feeds_have_the_vendors_api_beside_them() -> None:
    assert url_beside("wss://delayed.massive.com/stocks") == DEFAULT_URL
    assert url_beside("wss://socket.polygon.io/stocks") == DEFAULT_URL
    assert url_beside("ws://127.0.0.1:8765/stocks") is None
    assert url_beside("wss://evilmassive.com/stocks") is None
    assert url_beside("wss://[::1/stocks") is None


START = datetime(2026, 3, 4, 20, 40, tzinfo=UTC)
SYMBOLS = ["AAPL", "BRK.B", "X:BTC/USD", "^SPX", "A B%2F?", "Ä#"]
FAST = Backoff(first=0.001, cap=0.002)


def over(market: Market, **options: Any) -> Simulator:
    """A simulator whose market passes without anybody listening."""
    return Simulator(market, keys=[KEY], speed=float("inf"), wait_for_subscriber=False, **options)


@pytest.fixture(scope="module")
def past() -> Iterator[Simulator]:
    """An hour that is over, half of it after the close; one share became two since."""
    market = RandomMarket(SYMBOLS, seed=4, start=START, end=START + timedelta(hours=1))
    with over(market, splits=dict.fromkeys(SYMBOLS, 2)) as feed:
        assert feed.finished.wait(10)
        yield feed


@pytest.fixture
def sick(past: Simulator) -> Iterator[Simulator]:
    """The same, with every fault of REST in a third of the answers."""
    past.faults.rates.update(rest_429=0.3, rest_5xx=0.3, rest_cut=0.3, rest_null=0.5)
    past.faults.counts.clear()
    yield past
    past.faults.calm()


def client(url: str, **options: Any) -> RestClient:
    defaults = {"stop": threading.Event(), "tries": 100, "backoff": FAST}
    return RestClient(url, KEY, **{**defaults, **options})


def of(feed: Simulator, symbol: str) -> list[Bar]:
    return [bar for (name, _), bar in sorted(feed.truth().items()) if name == symbol]


def told(pages: Iterable[Page]) -> list[Bar]:
    return [bar for page in pages for bar in page.bars]


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("limit", [7, 50_000])
def test_the_bars_are_the_markets(past: Simulator, symbol: str, limit: int) -> None:
    asked = client(past.rest_url, page_limit=limit)
    bars = told(asked.minute_bars(symbol, START, START + timedelta(hours=1)))
    wanted = of(past, symbol)
    assert bars == wanted
    assert len(bars) > 7
    assert all(type(bar.volume) is int and type(bar.trades) is int for bar in bars)
    assert asked.counts.calls == -(-len(wanted) // limit)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_bars_are_the_markets_whatever_goes_wrong(sick: Simulator, symbol: str) -> None:
    asked = client(sick.rest_url, page_limit=2)
    pages = list(asked.minute_bars(symbol, START, START + timedelta(hours=1)))
    assert told(pages) == of(sick, symbol)
    assert not any(page.refusals for page in pages)
    struck = sick.faults.counts
    assert asked.counts.throttled == struck["rest_429"] > 0
    assert asked.counts.retries == struck.total() == asked.counts.calls - len(pages)
    assert min(struck["rest_5xx"], struck["rest_cut"]) > 0


def test_nothing_there_is_a_page_without_bars(sick: Simulator) -> None:
    asked = client(sick.rest_url)
    later = [START + timedelta(days=1, minutes=n) for n in range(21)]
    for starts, ends in pairwise(later):
        assert list(asked.minute_bars("AAPL", starts, ends)) == [Page([], [], ends)]
    assert sick.faults.counts["rest_null"] > 0
    calls = asked.counts.calls
    assert list(asked.minute_bars("AAPL", START, START)) == []
    assert asked.counts.calls == calls
    for starts, ends in ((START.replace(tzinfo=None), START), (START, START.replace(tzinfo=None))):
        with pytest.raises(ValueError, match="time zone"):
            next(asked.minute_bars("AAPL", starts, ends))


MOMENTS = st.tuples(st.integers(-3, 63), st.sampled_from([0, 1, 999, 1_000, 59_999_999])).map(
    lambda at: START + timedelta(minutes=at[0], microseconds=at[1])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MOMENTS, min_size=2, max_size=2).map(sorted), st.integers(1, 70))
def test_pages_say_how_far_they_reach(past: Simulator, ends: list[datetime], limit: int) -> None:
    first, last = ends
    new_york = first.astimezone(ZoneInfo("America/New_York"))
    found: list[Bar] = []
    wanted = [bar for bar in of(past, "BRK.B") if first <= bar.ts < last]
    until = first
    for page in client(past.rest_url, page_limit=limit).minute_bars("BRK.B", new_york, last):
        found += page.bars
        until = page.until
        assert found == [bar for bar in wanted if bar.ts < until]
    assert found == wanted
    assert until == last


def test_stop_between_pages_is_no_end(past: Simulator) -> None:
    stop = threading.Event()
    pages = client(past.rest_url, stop=stop, page_limit=2).minute_bars("AAPL", START, NOON_AFTER)
    assert len(next(pages).bars) == 2
    stop.set()
    with pytest.raises(StoppedError):
        next(pages)


def test_a_limit_of_calls_holds_the_third_one_up(past: Simulator) -> None:
    stop, before = threading.Event(), past.requests
    asked = client(past.rest_url, stop=stop, calls_per_minute=2, page_limit=1)
    with ThreadPoolExecutor(1) as pool:
        pages = pool.submit(list, asked.minute_bars("AAPL", START, NOON_AFTER))
        with pytest.raises(TimeoutError):
            pages.result(0.5)
        assert (asked.counts.calls, past.requests - before) == (2, 2)
        stop.set()
        with pytest.raises(StoppedError):
            pages.result(10)


def test_who_traded_on_a_day(sick: Simulator) -> None:
    asked = client(sick.rest_url)
    close = datetime(2026, 3, 4, 21, 0, tzinfo=UTC)
    regular = {symbol for symbol, ts in sick.truth() if ts < close}
    for _ in range(10):
        assert asked.traded_on(date(2026, 3, 4)) == sorted(regular)
        assert asked.traded_on(date(2026, 3, 5)) == []
    assert len(regular) > 1


def test_every_symbol_is_listed() -> None:
    market = RandomMarket(2_500, start=START, end=START)
    rates = {"rest_429": 0.3, "rest_5xx": 0.3, "rest_cut": 0.3}
    with over(market, faults=Faults(rates, seed=2)) as feed:
        asked = client(feed.rest_url)
        assert asked.symbols() == sorted(market.symbols)
        assert asked.counts.calls == 3 + asked.counts.retries
        assert asked.counts.retries == feed.faults.counts.total() > 0


def test_a_wrong_key_is_final(past: Simulator) -> None:
    asked = RestClient(past.rest_url, f"wrong-{KEY}", stop=threading.Event())
    with pytest.raises(RestRefusedError, match="MASSIVE_API_KEY") as refused:
        asked.symbols()
    assert KEY not in str(refused.value)
    assert (refused.value.exit_code, asked.counts.calls) == (5, 1)


T = 1_772_656_800_000  # START in ms
ROW = {"t": T, "o": 1.5, "h": 2, "l": 1, "c": 1.25, "v": 1200.0, "vw": 1.4, "n": 3}
BAR = Bar("AAPL", START, 1.5, 2, 1, 1.25, 1200, 1.4, 3)
NOON_AFTER = START + timedelta(hours=12)


def answered(*rows: Any, **fields: Any) -> list[Page]:
    """What becomes of this answer."""
    with HttpServer(Reply(content={"ticker": "AAPL", "results": list(rows), **fields})) as server:
        return list(client(server.url, tries=1).minute_bars("AAPL", START, NOON_AFTER))


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({}, {}),
        ({"v": 1200}, {"volume": 1200}),
        ({"v": 0.1}, {"volume": 0.1}),
        ({"v": 1200.0, "dv": "1200.000001"}, {"volume": Decimal("1200.000001")}),
        ({"v": 1200.0, "dv": "1200.0"}, {"volume": 1200}),
        ({"v": 2.0**60}, {"volume": 2.0**60}),
        ({"vw": None, "n": None}, {"vwap": None, "trades": None}),
        ({"n": 12.0, "otc": True, "e": 5, "sym": "X", "s": 0}, {"trades": 12}),
    ],
)
def test_numbers_are_those_of_the_feed(fields: dict[str, Any], numbers: dict[str, Any]) -> None:
    ((bars, refusals, until),) = answered({**ROW, **fields})
    wanted = BAR._replace(**numbers)
    assert (bars, refusals, until) == ([wanted], [], NOON_AFTER)
    assert [type(number) for number in bars[0]] == [type(number) for number in wanted]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("text", "not a row: no object"),
        (None, "not a row: no object"),
        ({}, "AAPL: t is missing"),
        ({**ROW, "t": T + 1}, f"AAPL: t is not on a whole minute: {T + 1}"),
        ({**ROW, "t": 10**18}, "AAPL: t is not on a whole minute: 1000000000000000000"),
        ({**ROW, "t": 6 * 10**17}, "AAPL: t is out of the calendar: 600000000000000000"),
        ({**ROW, "t": "5"}, 'AAPL: t is not a whole number of milliseconds: "5"'),
        ({**ROW, "o": None}, "AAPL: o is not a finite number: null"),
        ({**ROW, "c": float("nan")}, 'AAPL: c is not a finite number: "NaN"'),
        ({**ROW, "v": True}, "AAPL: v is not a finite number: true"),
        ({**ROW, "n": -1}, "AAPL: n is no number of trades: -1"),
        ({**ROW, "n": 0.5}, "AAPL: n is no number of trades: 0.5"),
        ({**ROW, "n": 2**31}, "AAPL: n is no number of trades: 2147483648"),
        ({**ROW, "n": "3"}, 'AAPL: n is no number of trades: "3"'),
    ],
)
def test_a_row_that_is_no_bar_costs_no_other(row: Any, reason: str) -> None:
    ((bars, refusals, _),) = answered(row, ROW, row)
    assert bars == [BAR]
    assert [(r.source, r.reason) for r in refusals] == [("rest", reason)] * 2
    if row and "NaN" not in reason:
        assert orjson.loads(refusals[0].payload) == row


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ticker": "AAP"}, "asked for AAPL, the REST API answers 'AAP'"),
        ({"adjusted": True}, "the REST API adjusts them"),
        ({"results": [{**ROW, "t": T + 60_000}, ROW]}, "does not sort"),
        ({"results": {"AAPL": ROW}}, "without a list"),
        ({"next_url": 5}, "lead nowhere"),
        ({"next_url": "http://example.com/v2"}, "not sent to another host"),
    ],
)
def test_an_answer_to_another_question_is_not_taken(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RestAnswerError, match=said):
        answered(ROW, **fields)


def test_pages_that_lead_in_a_circle_end() -> None:
    with HttpServer() as server:
        server.replies.append(Reply(content={"results": [ROW], "next_url": server.url + "/again"}))
        pages = client(server.url).minute_bars("AAPL", START, NOON_AFTER)
        assert next(pages).until == START + timedelta(minutes=1)
        with pytest.raises(RestAnswerError, match=r"/minute/.* lead nowhere"):
            list(pages)
        assert len(server.requests) == 2


class _Endless(HttpServer):
    """Each page points to another one."""

    def reply(self, path: str, number: int) -> Reply:  # noqa: ARG002
        next_url = f"{self.url}/again?cursor={number}"
        return Reply(content={"results": [ROW], "next_url": next_url})


def test_pages_that_never_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickstock.feed.rest._MOST_PAGES", 20)
    with _Endless() as server:
        with pytest.raises(RestAnswerError, match=r"/minute/.* more than 20 pages"):
            list(client(server.url).minute_bars("AAPL", START, NOON_AFTER))
        assert len(server.requests) == 20


@pytest.mark.parametrize(
    "told",
    [1_764_000_000, "soon", "", "2025-11-24T15:00:00", "0001-01-01T00:00:00+14:00", {}, [], True],
)
def test_a_time_that_is_none_is_not_told(told: object) -> None:
    with HttpServer(Reply(content={"market": "open", "serverTime": told})) as server:
        assert client(server.url).server_time() is None


def test_what_was_not_asked_is_left_out() -> None:
    early, late = ({**ROW, "t": T + minutes * 60_000} for minutes in (-1, 12 * 60))
    ((bars, refusals, until),) = answered(early, ROW, late)
    assert (bars, refusals, until) == ([BAR], [], NOON_AFTER)
    with HttpServer() as server:
        more = {"results": [ROW, late], "next_url": server.url + "/more"}
        server.replies.append(Reply(content=more))
        page = next(client(server.url).minute_bars("AAPL", START, NOON_AFTER))
    # What was left out has not been told.
    assert (page.bars, page.until) == ([BAR], NOON_AFTER)


def test_tickers_that_are_none_are_left_out() -> None:
    rows = [{"T": "B"}, {"T": 5}, {}, None, {"T": ""}, {"T": "a\n"}, {"T": "A"}, {"T": "B"}]
    with HttpServer(Reply(content={"results": rows})) as server:
        assert client(server.url).traded_on(date(2026, 3, 4)) == ["A", "B"]
