"""A plain websocket-client client, and what tests of the simulator ask of it."""

import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Self

import orjson
import websocket
from websocket import ABNF

from tickstock.bars import Bar
from tickstock.simulator import Minute, RandomMarket, Simulator, ticker_symbols

DEADLINE = 20.0
"""Seconds after which something that must happen has not happened."""

FAST = float("inf")
KEY = "simulator"

Event = dict[str, Any]

# A Wednesday's morning, so that a market of any length begins in regular trading.
MORNING = datetime(2026, 3, 4, 14, 30, tzinfo=UTC)


def market(symbols: int | Sequence[str], minutes: int, seed: int = 1) -> RandomMarket:
    """A market of so many regular minutes."""
    return RandomMarket(symbols, seed=seed, start=MORNING, end=MORNING + timedelta(minutes=minutes))


def bars_of(source: RandomMarket) -> list[Bar]:
    return [bar for minute in source.minutes() for bar in minute.bars]


def wait_for_end(simulator: Simulator) -> None:
    assert simulator.finished.wait(DEADLINE), "the market did not come to its end"


class Client:
    """Speaks the protocol step by step; every wait ends at a deadline."""

    def __init__(self, url: str, **options: Any) -> None:
        self._socket = websocket.create_connection(
            url, timeout=DEADLINE, skip_utf8_validation=True, **options
        )
        self._untaken: deque[Event] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    def send(self, action: str, params: str) -> None:
        self.send_raw(orjson.dumps({"action": action, "params": params}).decode())

    def send_raw(self, text: str | bytes) -> None:
        self._socket.send(text, ABNF.OPCODE_BINARY if isinstance(text, bytes) else ABNF.OPCODE_TEXT)

    def frame(self) -> list[Event]:
        """The next message, which must be a JSON array in a text frame."""
        assert not self._untaken, "events of the last frame were not taken"
        opcode, data = self._receive()
        assert opcode == ABNF.OPCODE_TEXT, f"opcode {opcode}: {data!r}"
        events = orjson.loads(data)
        assert type(events) is list
        return events

    def _receive(self) -> tuple[int, bytes]:
        """The next frame that is no ping; pings are answered, and do not extend the deadline."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            opcode, data = self._socket.recv_data(control_frame=True)
            if opcode != ABNF.OPCODE_PING:
                return opcode, data
        raise AssertionError(f"nothing but pings for {DEADLINE} s")

    def status(self) -> tuple[str, str]:
        """The next message, which must be one status."""
        (event,) = self.frame()
        assert set(event) == {"ev", "status", "message"}
        assert event["ev"] == "status"
        return event["status"], event["message"]

    def login(self, key: str = KEY) -> Self:
        assert self.status() == ("connected", "Connected Successfully")
        self.send("auth", key)
        assert self.status() == ("auth_success", "authenticated")
        return self

    def subscribe(self, params: str) -> Self:
        self.send("subscribe", params)
        assert [event["status"] for event in self.frame()] == ["success"] * len(params.split(","))
        return self

    def bars(self) -> Iterator[Event]:
        """AM events as they come; other events in between are a failure."""
        while True:
            if not self._untaken:
                self._untaken += self.frame()
            event = self._untaken.popleft()
            assert event["ev"] == "AM", event
            yield event

    def take(self, number: int) -> list[Event]:
        return list(islice(self.bars(), number))

    def take_acknowledgement(self, message: str) -> list[Event]:
        """Everything before the status of that message, which is next after bars only."""
        taken = [*self._untaken]
        self._untaken.clear()
        while (events := self.frame())[0]["ev"] == "AM":
            taken += events
        assert [event["message"] for event in events] == [message]
        return taken

    def is_silent(self, seconds: float) -> bool:
        """Nothing arrives for so long, and nothing that arrived is untaken."""
        if self._untaken:
            return False
        self._socket.settimeout(seconds)
        try:
            self._socket.recv_data()
        except websocket.WebSocketTimeoutException:
            return True
        finally:
            self._socket.settimeout(DEADLINE)
        return False

    def ending(self) -> tuple[list[Event], int | None]:
        """All events up to the end, and the close code: None if TCP just ended."""
        events = [*self._untaken]
        try:
            while True:
                opcode, data = self._receive()
                if opcode == ABNF.OPCODE_CLOSE:
                    return events, struct.unpack("!H", data[:2])[0]
                events += orjson.loads(data)
        except (websocket.WebSocketConnectionClosedException, ConnectionResetError):
            return events, None


@contextmanager
def subscribed(simulator: Simulator, params: str = "AM.*", **options: Any) -> Iterator[Client]:
    """A client that has logged in and subscribed."""
    with Client(simulator.url, **options) as client:
        yield client.login().subscribe(params)


def as_bar(event: Event) -> Bar:
    """The bar of an AM event, read independently of the product."""
    ts = datetime.fromtimestamp(event["s"] / 1000, UTC)
    prices = [event[field] for field in ("o", "h", "l", "c", "v", "vw") if field in event]
    return Bar(event["sym"], ts, *prices)


def by_key(events: Sequence[Event]) -> dict[tuple[str, datetime], Bar]:
    bars = [as_bar(event) for event in events]
    return {(bar.symbol, bar.ts): bar for bar in bars}


class SteadyMarket:
    """Every symbol has a bar in every minute, day and night, without end."""

    def __init__(self, symbols: int) -> None:
        self.symbols = ticker_symbols(symbols)

    def minutes(self) -> Iterator[Minute]:
        ts = MORNING
        while True:
            yield Minute(
                ts, [Bar(name, ts, 10, 11, 9, 10.5, 100, 10.1, 7) for name in self.symbols]
            )
            ts += timedelta(minutes=1)


class ListMarket:
    """A market of given minutes; an exception among them is raised in its place."""

    def __init__(self, minutes: Sequence[Minute | Exception]) -> None:
        self._minutes = minutes

    @property
    def symbols(self) -> Sequence[str]:
        return ()

    def minutes(self) -> Iterator[Minute]:
        for minute in self._minutes:
            if isinstance(minute, Exception):
                raise minute
            yield minute
