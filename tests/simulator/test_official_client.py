"""The vendor's own Python client, unmodified, against the simulator."""

import asyncio
from datetime import UTC, datetime

import pytest
from massive import WebSocketClient
from massive.exceptions import AuthError
from massive.websocket.models import EquityAgg, Market

from tickstock.bars import Bar
from tickstock.simulator import Simulator

from .client import DEADLINE, FAST, KEY, bars_of, market


def client_for(simulator: Simulator, key: str, *subscriptions: str) -> WebSocketClient:
    return WebSocketClient(
        api_key=key,
        feed=f"127.0.0.1:{simulator.port}",
        market=Market.Stocks,
        subscriptions=list(subscriptions),
        max_reconnects=0,
        secure=False,
    )


async def receive(client: WebSocketClient, number: int) -> list[EquityAgg]:
    """What the client's handler is given, until there are so many."""
    received: list[EquityAgg] = []
    complete = asyncio.Event()

    async def handle(messages: list[EquityAgg]) -> None:
        received.extend(messages)
        if len(received) >= number:
            complete.set()

    async def close_when_complete() -> None:
        await complete.wait()
        await client.close()

    async with asyncio.timeout(DEADLINE):
        closing = asyncio.create_task(close_when_complete())
        try:
            await client.connect(handle)
        finally:
            closing.cancel()
    return received


def key_of(aggregate: EquityAgg) -> tuple[str, datetime]:
    assert aggregate.symbol
    assert aggregate.start_timestamp
    return aggregate.symbol, datetime.fromtimestamp(aggregate.start_timestamp / 1000, UTC)


def as_bar(aggregate: EquityAgg) -> Bar:
    return Bar(
        *key_of(aggregate),
        aggregate.open,
        aggregate.high,
        aggregate.low,
        aggregate.close,
        aggregate.volume,
        aggregate.vwap,
    )


@pytest.mark.parametrize("subscriptions", [("AM.*",), ("AM.AAPL", "AM.SPY")])
def test_it_receives_every_bar_parsed(subscriptions: tuple[str, ...]) -> None:
    source = market(60, 45)
    wanted = {topic.removeprefix("AM.") for topic in subscriptions}
    expected = [bar for bar in bars_of(source) if wanted & {"*", bar.symbol}]
    with Simulator(source, speed=FAST) as simulator:
        received = asyncio.run(receive(client_for(simulator, KEY, *subscriptions), len(expected)))
        assert simulator.finished.wait(DEADLINE)
    assert all(type(aggregate) is EquityAgg for aggregate in received)
    assert len(received) == len(expected)
    assert {key_of(aggregate): as_bar(aggregate) for aggregate in received} == simulator.sent
    first = received[0]
    assert first.event_type == "AM"
    assert first.start_timestamp
    assert first.end_timestamp == first.start_timestamp + 60_000
    assert first.accumulated_volume == first.volume
    assert first.official_open_price == first.open
    assert first.aggregate_vwap == first.vwap
    assert first.average_size == round(expected[0].volume / (expected[0].trades or 1))


def test_it_reports_a_wrong_key() -> None:
    with (
        Simulator(market(1, 1)) as simulator,
        pytest.raises(AuthError, match="authentication failed"),
    ):
        asyncio.run(receive(client_for(simulator, "wrong", "AM.*"), 1))
