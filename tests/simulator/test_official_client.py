"""The vendor's own Python client, unmodified, against the simulator."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from massive import WebSocketClient
from massive.exceptions import AuthError
from massive.websocket.models import EquityAgg, EquityTrade, Market

from tickstock.bars import Bar
from tickstock.simulator import RandomMarket, Simulator
from tickstock.simulator.events import Encoder
from tickstock.simulator.tape import Tape

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


def test_it_receives_seconds_and_trades_too() -> None:
    source = market(["AAPL", "SPY"], 4)
    with Simulator(source, speed=FAST) as simulator:
        client = client_for(simulator, KEY, "AM.*", "A.*", "T.*")
        messages: list[Any] = asyncio.run(receive(client, trades_in(source)))
        assert simulator.finished.wait(DEADLINE)
        truth = simulator.truth()
    trades = [message for message in messages if isinstance(message, EquityTrade)]
    seconds = [message for message in messages if message.event_type == "A"]
    assert len(trades) + len(seconds) == len(messages) - len(truth)
    first = next(trade for trade in trades if trade.trf_id)
    assert first.event_type == "T"
    assert (first.trf_timestamp, first.id) == (first.timestamp, str(first.sequence_number))
    assert {trade.tape for trade in trades} <= {1, 2, 3}
    assert any(trade.conditions for trade in trades)
    for symbol in ("AAPL", "SPY"):
        volume = sum(bar.volume for (name, _), bar in truth.items() if name == symbol)
        assert sum(second.volume for second in seconds if second.symbol == symbol) == volume
        assert [s.accumulated_volume for s in seconds if s.symbol == symbol][-1] == volume


def trades_in(source: RandomMarket) -> int:
    """Messages of all channels, counted without the wire."""
    encoder = Encoder()
    count = 0
    for minute in source.minutes():
        events = encoder.encode(minute)
        tape = Tape(minute.bars, events, seed=0, regular=True)
        count += len(events) + len(tape.ticks(0, 60_000, {"T": None, "A": None}))
    return count


def test_it_reports_a_wrong_key() -> None:
    with (
        Simulator(market(1, 1)) as simulator,
        pytest.raises(AuthError, match="authentication failed"),
    ):
        asyncio.run(receive(client_for(simulator, "wrong", "AM.*"), 1))
