"""`tickstock ingest`: drain the feed, parse, store, forward.

Two threads matter. One drains the socket into a queue and does nothing else, since the feed cuts off
slow consumers. The other parses, stores and counts; while it waits for the database the queue grows.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from tickstock.bars import Bar, Refusal
from tickstock.db.upkeep import UpkeepWorker
from tickstock.db.writer import Counts
from tickstock.feed.client import FeedClient
from tickstock.feed.protocol import parse_frame
from tickstock.ingest.forward import Forwarder
from tickstock.ingest.store import Store

log = logging.getLogger(__name__)

BATCH = 20_000
"""Bars that are written at once at most. A batch is what has arrived while the last was written."""
REPORT_EVERY = 10.0
"""Seconds between two lines about progress."""

Frames = queue.SimpleQueue[tuple[bytes, datetime]]


class _Batch(NamedTuple):
    bars: list[Bar]
    refusals: list[Refusal]


class Ingest:
    """One feed into one database. `make_client` gets the sink for frames and the stop event."""

    def __init__(
        self,
        url: str,
        make_client: Callable[[Callable[[bytes, datetime], None], threading.Event], FeedClient],
        *,
        redis_url: str | None = None,
        refresh_every: float = 10.0,
    ) -> None:
        self.stop = threading.Event()
        self.ignored = 0
        """Well-formed events of kinds that are not stored."""
        self._frames: Frames = queue.SimpleQueue()
        self._client = make_client(self._receive, self.stop)
        self._store = Store(url, self.stop)
        self._forwarder = Forwarder(redis_url) if redis_url else None
        self._upkeep = UpkeepWorker(url, self.stop, interval=refresh_every)
        self._failure: Exception | None = None
        self._feed_time: datetime | None = None

    @property
    def counts(self) -> Counts:
        return self._store.counts

    def run(self) -> None:
        """Run until `stop` is set, then store what has been received, and return.

        Raises FeedRefusedError or FeedUnreachableError when the feed refuses for good, and
        DatabaseUnavailableError when received bars could not be stored; in either case all that can
        be stored has been.
        """
        drain = threading.Thread(target=self._drain, name="drain", daemon=True)
        drain.start()
        self._upkeep.start()
        if self._forwarder:
            self._forwarder.start()
        else:
            log.info("no Redis: bars are not forwarded (set TICKSTOCK_REDIS_URL)")
        try:
            self._work(drain)
        finally:
            self.stop.set()
            self._finish()
        if self._failure:
            raise self._failure

    def _drain(self) -> None:
        try:
            self._client.run()
        except Exception as error:  # carried over to the main thread, which reports it
            self._failure = error
        finally:
            self.stop.set()

    def _receive(self, frame: bytes, received_at: datetime) -> None:
        self._frames.put((frame, received_at))

    def _work(self, drain: threading.Thread) -> None:
        report_at = time.monotonic() + REPORT_EVERY
        while drain.is_alive() or not self._frames.empty():
            batch = self._gather()
            if batch.bars or batch.refusals:
                self._write(batch)
            if time.monotonic() >= report_at:
                self._report()
                report_at = time.monotonic() + REPORT_EVERY

    def _gather(self) -> _Batch:
        """What has arrived, up to a batch; waits a moment for the first frame."""
        batch = _Batch([], [])
        wait = 0.2
        while len(batch.bars) < BATCH:
            try:
                data, received_at = (
                    self._frames.get(timeout=wait) if wait else self._frames.get_nowait()
                )
            except queue.Empty:
                break
            wait = 0.0
            frame = parse_frame(data, received_at)
            batch.bars.extend(frame.bars)
            batch.refusals.extend(frame.refusals)
            self.ignored += frame.ignored
        return batch

    def _write(self, batch: _Batch) -> None:
        stored = self._store.write(batch.bars, batch.refusals)
        if stored:
            self._feed_time = max(bar.ts for bar in stored)
            if self._forwarder:
                self._forwarder.offer(stored)
        for refusal in batch.refusals[:3]:
            log.warning("refused: %s (kept in refused_bars)", refusal.reason)

    def _report(self) -> None:
        log.info("%s", self.summary())

    def summary(self) -> str:
        """One line: what became of the bars, and what is waiting."""
        c = self.counts
        at = f"{self._feed_time:%Y-%m-%d %H:%M} UTC" if self._feed_time else "no bar yet"
        return (
            f"{c.received:,} received = {c.inserted:,} new + {c.replaced:,} replaced"
            f" + {c.unchanged:,} unchanged + {c.refused:,} refused;"
            f" {self._frames.qsize():,} frames waiting; feed at {at}"
        )

    def _finish(self) -> None:
        if self._forwarder:
            self._forwarder.close()
        self._upkeep.join(timeout=5)
        self._store.close()
        log.info("%s", self.summary())
