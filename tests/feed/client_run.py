"""A feed client running in a thread, and what came out of it."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tickstock.feed.backoff import Backoff
from tickstock.feed.client import FeedClient

from .scripted_server import DEADLINE, Peer, Script

KEY = "k3y-0f-N0-0ne"
BAR: dict[str, Any] = {
    "ev": "AM", "sym": "AAPL", "v": 100, "vw": 1.5, "o": 1, "c": 2, "h": 2, "l": 1,
    "s": 1_755_932_400_000, "e": 1_755_932_460_000,
}  # fmt: skip


class Recorder(Backoff):
    """A back-off that is short and tells what was asked of it."""

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__(first=seconds, cap=seconds, factor=1)
        self.calls: list[str] = []
        self._waited = threading.Semaphore(0)

    def next(self) -> float:
        self.calls.append("next")
        self._waited.release()
        return super().next()

    def reset(self) -> None:
        self.calls.append("reset")
        super().reset()

    def await_next(self, count: int = 1) -> None:
        """Wait until the client has asked `count` more times how long to wait."""
        for _ in range(count):
            assert self._waited.acquire(timeout=DEADLINE)


class Run:
    """One client, its thread, the frames it handed over and how it ended."""

    def __init__(self, url: str, symbols: tuple[str, ...], options: dict[str, Any]) -> None:
        self.stop = threading.Event()
        self.backoff = Recorder()
        self.crowded_backoff = Recorder()
        self.error: BaseException | None = None
        self.received: queue.Queue[tuple[bytes, datetime]] = queue.Queue()
        defaults: dict[str, Any] = {
            "on_frame": lambda *received: self.received.put(received),
            "backoff": self.backoff,
            "crowded_backoff": self.crowded_backoff,
        }
        self.client = FeedClient(url, KEY, symbols, stop=self.stop, **{**defaults, **options})
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.client.run()
        except BaseException as error:
            self.error = error

    def frame(self) -> bytes:
        """The next frame that is handed over."""
        return self.received.get(timeout=DEADLINE)[0]

    def bar(self) -> dict[str, Any]:
        """The next AM event, whatever comes before it."""
        while True:
            for event in json.loads(self.frame()):
                if event["ev"] == "AM":
                    return dict(event)

    def end(self) -> None:
        """Wait until `run` has ended."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"the client does not end: {self.client.state}"

    def stop_in_time(self) -> None:
        """Stop, and see that nothing is waited for, which takes far longer than this."""
        before = time.monotonic()
        self.stop.set()
        self.end()
        assert time.monotonic() - before < 5


@contextmanager
def running(url: str, *symbols: str, fails: Any = False, **options: Any) -> Iterator[Run]:
    """A client that runs for the block and is stopped after it; one that `fails` may raise."""
    run = Run(url, symbols or ("AAPL",), options)
    try:
        yield run
    finally:
        run.stop.set()
        run.end()
    if not fails and run.error is not None:
        raise run.error


def failure(url: str, *symbols: str, **options: Any) -> tuple[str, str]:
    """Run a client that must end by itself; the class and the message of what it raises."""
    with running(url, *symbols, fails=True, **options) as run:
        run.end()
    assert run.error is not None
    assert KEY not in str(run.error)
    assert "\n" not in str(run.error)
    assert run.error.__cause__ is None
    assert run.error.__context__ is None or run.error.__suppress_context__
    return type(run.error).__name__, str(run.error)


def sends_a_bar(**fields: Any) -> Script:
    """The script of a server that is in order: serves, sends one bar, stays."""

    def script(peer: Peer) -> None:
        peer.serve()
        peer.send([{**BAR, **fields}])
        peer.stay()

    return script
