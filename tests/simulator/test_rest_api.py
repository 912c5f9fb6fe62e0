"""The simulator's REST API: the same market as the stream, page by page, in health and in sickness."""

import http.client
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from massive import RESTClient
from massive.rest.models import Agg

from tickstock.bars import Bar
from tickstock.simulator import Faults, Minute, RandomMarket, Simulator

from .client import DEADLINE, FAST, KEY, ListMarket

# The last 20 minutes of a regular session, and 40 after it; New York is 5 hours behind.
START = datetime(2026, 3, 4, 20, 40, tzinfo=UTC)
SYMBOLS = ["AAPL", "BRK.B", "ZZZZ"]
Truth = dict[tuple[str, datetime], Bar]


def over(market: Any, **options: Any) -> Simulator:
    """A simulator whose market passes without anybody listening."""
    return Simulator(market, speed=FAST, wait_for_subscriber=False, **options)


def an_hour() -> RandomMarket:
    return RandomMarket(SYMBOLS, seed=4, start=START, end=START + timedelta(hours=1))


@pytest.fixture(scope="module")
def past() -> Iterator[Simulator]:
    with over(an_hour(), splits={"AAPL": 2}) as simulator:
        assert simulator.finished.wait(DEADLINE)
        yield simulator


def get(simulator: Simulator, path: str, key: str | None = KEY) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    answer = urllib3.request("GET", simulator.rest_url + path, headers=headers, retries=False)
    return answer.status, orjson.loads(answer.data)


def minutes_path(symbol: str, begin: object, end: object, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"/v2/aggs/ticker/{symbol}/range/1/minute/{begin}/{end}?{query}"


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)


def as_bar(symbol: str, row: dict[str, Any]) -> Bar:
    ts = datetime.fromtimestamp(row["t"] / 1_000, UTC)
    return Bar(
        symbol, ts, row["o"], row["h"], row["l"], row["c"], row["v"], row.get("vw"), row.get("n")
    )


def of(truth: Truth, symbol: str) -> list[Bar]:
    return [bar for _, bar in sorted(truth.items()) if bar.symbol == symbol]


def test_truth_is_what_the_market_made(past: Simulator) -> None:
    made = {(bar.symbol, bar.ts): bar for minute in an_hour().minutes() for bar in minute.bars}
    assert past.truth() == made
    assert past.sent == {}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_day_of_minutes(past: Simulator, symbol: str) -> None:
    status, answer = get(past, minutes_path(symbol, "2026-03-04", "2026-03-04", adjusted="false"))
    wanted = of(past.truth(), symbol)
    assert status == 200
    assert [as_bar(symbol, row) for row in answer.pop("results")] == wanted
    assert len(answer.pop("request_id")) == 32
    assert answer == {
        "ticker": symbol, "adjusted": False, "queryCount": len(wanted),
        "resultsCount": len(wanted), "status": "OK",
    }  # fmt: skip
    assert all(type(row["v"]) is float for row in get(past, minutes_path(symbol, 0, ms(START)))[1]
               .get("results", []))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(-5, 70), st.integers(-5, 70), st.integers(1, 70), st.booleans(), st.data())
def test_pages_hold_everything_once(
    past: Simulator, first: int, last: int, limit: int, descending: bool, data: st.DataObject
) -> None:
    begin, end = (ms(START + timedelta(minutes=n)) for n in (first, last))
    begin -= data.draw(st.sampled_from([0, 1, 59_999]))
    sort = "desc" if descending else "asc"
    path = minutes_path("BRK.B", begin, end, limit=limit, sort=sort, adjusted="false")
    found: list[Bar] = []
    while True:
        status, answer = get(past, path)
        assert status == 200
        page = [as_bar("BRK.B", row) for row in answer.get("results", [])]
        assert answer["resultsCount"] == len(page) <= limit
        assert answer["adjusted"] is False
        found += page
        if "next_url" not in answer:
            break
        assert len(page) == limit
        assert answer["next_url"].startswith(past.rest_url + "/v2/aggs/ticker/BRK.B/range/1/minute")
        assert KEY not in answer["next_url"]
        path = answer["next_url"].removeprefix(past.rest_url)
    wanted = [bar for bar in of(past.truth(), "BRK.B") if begin <= ms(bar.ts) <= end]
    assert found == (wanted[::-1] if descending else wanted)


def test_dates_are_new_yorks(past: Simulator) -> None:
    late = Bar("SPY", datetime(2026, 3, 5, 0, 59, tzinfo=UTC), 1, 1, 1, 1, 1)  # 19:59 on the 4th
    early = late._replace(ts=datetime(2026, 3, 5, 5, 0, tzinfo=UTC))  # 00:00 on the 5th
    source = ListMarket([Minute(bar.ts, [bar]) for bar in (late, early)])
    with over(source) as simulator:
        assert simulator.finished.wait(DEADLINE)
        for day, bar in (("2026-03-04", late), ("2026-03-05", early)):
            _, answer = get(simulator, minutes_path("SPY", day, day))
            assert [as_bar("SPY", row) for row in answer["results"]] == [bar]


def test_adjusted_is_the_default_and_divides_by_later_splits(past: Simulator) -> None:
    path = minutes_path("AAPL", "2026-03-04", "2026-03-04")
    adjusted = get(past, path)[1]
    assert adjusted["adjusted"] is True
    for row, bar in zip(adjusted["results"], of(past.truth(), "AAPL"), strict=True):
        assert (row["v"], row["o"]) == (2 * bar.volume, pytest.approx(float(bar.open) / 2))
    assert get(past, path)[1]["results"] == get(past, path + "adjusted=true")[1]["results"]


def test_nothing_there_is_said_without_results(past: Simulator) -> None:
    for path in (
        minutes_path("NOSUCH", "2026-03-04", "2026-03-04"),
        minutes_path("AAPL", "2026-03-05", "2026-03-06"),
        minutes_path("AAPL", ms(START) + 60_000, ms(START)),
    ):
        status, answer = get(past, path)
        assert (status, answer["resultsCount"], answer["status"]) == (200, 0, "OK")
        assert "results" not in answer
    past.faults.order("rest_null")
    assert get(past, path)[1]["results"] is None


def test_the_minute_that_passes_is_not_told_before_it_is_over() -> None:
    with Simulator(an_hour(), speed=1, wait_for_subscriber=False) as simulator:
        _, answer = get(simulator, minutes_path("AAPL", "2026-03-04", "2026-03-04"))
        assert answer["resultsCount"] == 0
        assert simulator.truth() == {}


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        (minutes_path("AAPL", "yesterday", "2026-03-04"), 400, "'from'"),
        (minutes_path("AAPL", "2026-03-04", "2026-13-04"), 400, "'to'"),
        (minutes_path("AAPL", "2026-03-04", "9999-12-31"), 400, "'to'"),
        (minutes_path("AAPL", 0, 1, limit=0), 400, "limit"),
        (minutes_path("AAPL", 0, 1, limit=50_001), 400, "limit"),
        (minutes_path("AAPL", 0, 1, limit="x"), 400, "limit"),
        (minutes_path("AAPL", 0, 1, sort="up"), 400, "sort"),
        (minutes_path("AAPL", 0, 1, cursor="a"), 400, "cursor"),
        ("/v2/aggs/ticker/AAPL/range/1/day/0/1", 404, "1/minute"),
        ("/v2/aggs/ticker/AAPL/range/5/minute/0/1", 404, "1/minute"),
        ("/v2/aggs/grouped/locale/us/market/stocks/today", 400, "date"),
        ("/v3/reference/exchanges", 404, "not among"),
        ("/v3/reference/tickers?limit=1001", 400, "limit"),
        ("/v3/reference/tickers?sort=name", 400, "sort"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_the_vendors_form(
    past: Simulator, path: str, status: int, error: str
) -> None:
    found, answer = get(past, path)
    assert (found, answer["status"]) == (status, "ERROR")
    assert error in answer["error"]
    assert answer["request_id"]


def test_keys(past: Simulator) -> None:
    path = minutes_path("AAPL", 0, 1)
    for key in (None, "", "wrong"):
        assert get(past, path, key)[0] == 401
    assert get(past, path + f"&apiKey={KEY}", None)[0] == 200
    with over(an_hour(), keys=None) as simulator:
        assert get(simulator, path, None)[0] == 200


def test_the_grouped_day_is_the_regular_session_of_each_symbol(past: Simulator) -> None:
    _, answer = get(past, "/v2/aggs/grouped/locale/us/market/stocks/2026-03-04?adjusted=false")
    close = datetime(2026, 3, 4, 21, 0, tzinfo=UTC)
    regular = [bar for bar in past.truth().values() if bar.ts < close]
    rows = {row["T"]: row for row in answer["results"]}
    assert set(rows) == {bar.symbol for bar in regular}
    assert answer["resultsCount"] == len(rows)
    for symbol, row in rows.items():
        own = sorted((bar for bar in regular if bar.symbol == symbol), key=lambda bar: bar.ts)
        assert (row["o"], row["c"], row["t"]) == (own[0].open, own[-1].close, ms(close))
        assert (row["h"], row["l"]) == (max(b.high for b in own), min(b.low for b in own))
        assert (row["v"], row["n"]) == (sum(b.volume for b in own), sum(b.trades or 0 for b in own))
        turnover = sum(Decimal(str(b.vwap)) * int(b.volume) for b in own)
        assert row["vw"] == pytest.approx(float(turnover / int(row["v"])), abs=5e-5)
    empty = get(past, "/v2/aggs/grouped/locale/us/market/stocks/2026-03-05")[1]
    assert (empty["resultsCount"], "results" in empty) == (0, False)


def test_the_grouped_day_leaves_out_what_is_before_and_after_the_session() -> None:
    times = [datetime(2026, 3, 4, 14, 29, tzinfo=UTC), datetime(2026, 3, 4, 14, 30, tzinfo=UTC),
             datetime(2026, 3, 4, 20, 59, tzinfo=UTC), datetime(2026, 3, 4, 21, 0, tzinfo=UTC)]  # fmt: skip
    bars = [Bar("SPY", ts, price, price, price, price, 10) for price, ts in enumerate(times, 1)]
    early = bars[0]._replace(symbol="IBM")
    source = ListMarket([Minute(bar.ts, [bar]) for bar in (early, *bars)])
    with over(source) as simulator:
        assert simulator.finished.wait(DEADLINE)
        _, answer = get(simulator, "/v2/aggs/grouped/locale/us/market/stocks/2026-03-04")
    (row,) = answer["results"]
    assert (row["T"], row["o"], row["l"], row["h"], row["c"], row["v"]) == ("SPY", 2, 2, 3, 3, 20)
    assert "vw" not in row
    assert "n" not in row


@pytest.mark.parametrize("limit", [7, 50_000])
def test_the_vendors_client_lists_every_bar(past: Simulator, limit: int) -> None:
    client = RESTClient(KEY, base=past.rest_url)
    day = START.date()
    for symbol in SYMBOLS:
        listed = client.list_aggs(symbol, 1, "minute", day, day, adjusted=False, limit=limit)
        found = [bar_of(symbol, aggregate) for aggregate in listed]
        assert found == of(past.truth(), symbol)
    newest = client.list_aggs("AAPL", 1, "minute", START, START + timedelta(hours=1), False, "desc")
    assert [bar_of("AAPL", a) for a in newest] == of(past.truth(), "AAPL")[::-1]
    assert client.get_aggs("NOSUCH", 1, "minute", day, day) == []
    assert {row.ticker for row in client.get_grouped_daily_aggs(day)} <= set(SYMBOLS)
    assert client.get_market_holidays() == []
    assert client.get_market_status().market == "extended-hours"


@pytest.mark.parametrize("limit", [1, 7, 8, 1_000])
def test_the_vendors_client_lists_every_symbol(limit: int) -> None:
    source = RandomMarket(8, start=START, end=START)  # none of them has traded
    with over(source) as simulator:
        client = RESTClient(KEY, base=simulator.rest_url)
        listed = list(client.list_tickers(market="stocks", active=True, limit=limit))
        assert simulator.requests == -(-8 // limit)
        assert list(client.list_tickers(ticker="BA")) == []
        assert [found.ticker for found in client.list_tickers(ticker="AAPL")] == ["AAPL"]
        for none in ({"market": "crypto"}, {"active": False}):
            assert list(client.list_tickers(**none)) == []
    assert [found.ticker for found in listed] == sorted(source.symbols)
    assert all((found.market, found.active) == ("stocks", True) for found in listed)
    assert all(found.name for found in listed)


def test_who_has_traded_is_listed_too() -> None:
    bar = Bar("A/B", START, 1, 1, 1, 1, 10)
    with over(ListMarket([Minute(START, [bar])])) as simulator:  # which names no symbols
        assert simulator.finished.wait(DEADLINE)
        (row,) = get(simulator, "/v3/reference/tickers")[1]["results"]
        assert row["ticker"] == "A/B"
        assert (
            get(simulator, minutes_path("A%2FB", "2026-03-04", "2026-03-04"))[1]["resultsCount"]
            == 1
        )


def bar_of(symbol: str, a: Agg) -> Bar:
    assert a.timestamp is not None
    ts = datetime.fromtimestamp(a.timestamp / 1_000, UTC)
    return Bar(symbol, ts, a.open, a.high, a.low, a.close, a.volume, a.vwap, a.transactions)


def test_the_vendors_client_comes_through_faults() -> None:
    faults = Faults({"rest_429": 0.2, "rest_5xx": 0.2, "rest_cut": 0.1}, seed=3)
    with over(an_hour(), faults=faults) as simulator:
        assert simulator.finished.wait(DEADLINE)
        client = RESTClient(KEY, base=simulator.rest_url, retries=8)
        listed = client.list_aggs("AAPL", 1, "minute", START, START + timedelta(hours=1), limit=2)
        assert [bar_of("AAPL", a) for a in listed] == of(simulator.truth(), "AAPL")
        assert min(faults.counts[name] for name in ("rest_429", "rest_5xx")) > 2
        assert simulator.requests >= 30 + faults.counts.total()


def test_each_refusal_has_its_form() -> None:
    with over(an_hour()) as simulator:
        assert simulator.finished.wait(DEADLINE)
        path = minutes_path("AAPL", "2026-03-04", "2026-03-04")
        simulator.inject("rest_429")
        status, answer = get(simulator, path)
        assert (status, answer["status"]) == (429, "ERROR")
        assert answer["error"].startswith("You've exceeded the maximum requests per minute")
        simulator.faults.order("rest_5xx", 60)
        answers = [
            urllib3.request("GET", simulator.rest_url + path, headers=auth(), retries=False)
            for _ in range(60)
        ]
        assert {answer.status for answer in answers} == {500, 502, 503, 504}
        assert all(answer.data for answer in answers)
        simulator.faults.order("rest_cut", 20)
        received = [cut_short(simulator, path) for _ in range(20)]
        assert any(received)
        assert not all(received)
        assert get(simulator, path)[0] == 200
        simulator.faults.order("rest_403")
        assert get(simulator, path)[0] == 200
        status, answer = get(simulator, "/v1/marketstatus/now")
        assert (status, answer["status"]) == (403, "ERROR")
        assert get(simulator, "/v1/marketstatus/now")[0] == 200
        counts = {"rest_429": 1, "rest_5xx": 60, "rest_cut": 20, "rest_403": 1}
        assert simulator.faults.counts == counts


def auth() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


def cut_short(simulator: Simulator, path: str) -> int:
    """How many bytes came of an answer that must not come whole."""
    address = urlsplit(simulator.rest_url)
    connection = http.client.HTTPConnection(str(address.hostname), simulator.port, timeout=DEADLINE)
    connection.request("GET", path, headers=auth())
    with pytest.raises(http.client.IncompleteRead) as cut:
        connection.getresponse().read()
    return len(cut.value.partial)


def test_requests_fail_by_the_seed_and_not_by_their_order() -> None:
    def failures(seed: int, symbols: list[str]) -> dict[str, list[int]]:
        with over(an_hour(), faults=Faults({"rest_5xx": 0.5}, seed=seed)) as simulator:
            assert simulator.finished.wait(DEADLINE)
            paths = {symbol: minutes_path(symbol, 0, 1) for symbol in symbols}
            return {
                symbol: [
                    urllib3.request(
                        "GET", simulator.rest_url + path, headers=auth(), retries=False
                    ).status
                    for _ in range(8)
                ]
                for symbol, path in paths.items()
            }

    first = failures(1, SYMBOLS)
    assert first == failures(1, SYMBOLS[::-1])
    assert first != failures(2, SYMBOLS)
    statuses = {status for found in first.values() for status in found}
    assert 200 in statuses
    assert statuses - {200} <= {500, 502, 503, 504}
