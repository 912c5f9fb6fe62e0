"""Asking the vendor's REST API whether the market is open, against the simulator's."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from massive import RESTClient

from tickstock.errors import TickstockError
from tickstock.feed.rest import DEFAULT_URL, log_market_now, market_now, url_beside
from tickstock.simulator import RandomMarket, Simulator
from tickstock.simulator.rest import market_status

KEY = "rest-test-key"


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
    with pytest.raises(TickstockError, match="no answer from") as absent:
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
