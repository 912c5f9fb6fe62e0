"""A feed whose client gets what a test sends, when the test sends it."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.feed.scripted_server import ClientLeftError, Peer, ScriptedServer

from .program import DEADLINE

OPENING = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
"""A Monday, 09:30 in New York."""

Event = dict[str, Any]


def bar(symbol: str, minute: int, **fields: Any) -> Event:
    """An AM event of a minute after the opening; a Doji, unless the fields say otherwise."""
    start = int((OPENING + timedelta(minutes=minute)).timestamp()) * 1_000
    prices = {"o": 10.5, "h": 11.25, "l": 9.75, "c": 10.5, "v": 100 + minute, "vw": 10.4375}
    return {"ev": "AM", "sym": symbol, **prices, "s": start, "e": start + 60_000, **fields}


def bars(symbol: str, minutes: range) -> list[Event]:
    return [bar(symbol, minute) for minute in minutes]


class HandFed:
    """What to do with the one client that is connected."""

    def __init__(self) -> None:
        self.url = ""
        self._orders: queue.Queue[Callable[[Peer], None] | None] = queue.Queue()

    def send(self, *events: Event) -> None:
        """Send the events in one frame."""
        self.send_raw(json.dumps(events).encode())

    def send_raw(self, frame: bytes) -> None:
        self._orders.put(lambda peer: peer.text(frame))

    def await_received(self) -> None:
        """Return once the client has read all that was sent: it answers a ping in its turn."""
        answered = threading.Event()

        def ping(peer: Peer) -> None:
            peer.ping(b"all of it?")
            answered.set()

        self._orders.put(ping)
        assert answered.wait(DEADLINE)

    def serve(self, peer: Peer) -> None:
        try:
            peer.serve()
        except ClientLeftError:  # stopped while it logged in: the orders are for the next one
            return
        while order := self._orders.get():
            order(peer)
        self._orders.put(None)  # for the thread of a connection before, if the client came back

    def end(self) -> None:
        self._orders.put(None)


@contextmanager
def hand_fed() -> Iterator[HandFed]:
    feed = HandFed()
    with ScriptedServer(feed.serve) as server:
        feed.url = server.url
        try:
            yield feed
        finally:
            feed.end()
