"""Forwarding stored bars to Redis, beside the pipeline: Redis gone never delays a bar."""

import logging
import queue
import threading
from collections.abc import Sequence

import orjson

from tickstock.bars import Bar
from tickstock.redis import DATA_CHANNEL, RedisError, client

log = logging.getLogger(__name__)

WAITING_LIMIT = 1_000
"""Batches that wait for Redis before the oldest are dropped; the table has them all."""
RETRY_AFTER = 2.0
"""Seconds between tries when Redis does not answer."""


class Forwarder(threading.Thread):
    """Publishes bars on the channel `tickstock_data`, as `symbol, timestamp, open … volume`.

    Publish and subscribe keeps nothing for those who are away, and so does this: what Redis can't
    take for long is dropped and counted, never held against the pipeline.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="forward", daemon=True)
        self.forwarded = 0
        self.dropped = 0
        self._redis = client(url)
        self._batches: queue.Queue[Sequence[Bar] | None] = queue.Queue(WAITING_LIMIT)
        self._stopping = threading.Event()

    def offer(self, bars: Sequence[Bar]) -> None:
        """Hand over a batch of stored bars; never blocks."""
        while True:
            try:
                return self._batches.put_nowait(bars)
            except queue.Full:
                self._drop_oldest()

    def close(self) -> None:
        """Publish what waits, as far as Redis takes it now, and end."""
        self._stopping.set()
        self.offer(())  # wakes the thread
        self.join(timeout=10)

    def run(self) -> None:
        while not (self._stopping.is_set() and self._batches.empty()):
            bars = self._batches.get()
            if bars:
                self._publish(bars)

    def _publish(self, bars: Sequence[Bar]) -> None:
        lost = False
        while True:
            try:
                self._send(bars)
            except RedisError as error:
                if not lost:
                    log.warning("Redis does not take bars, the table does: %s", error)
                lost = True
                if self._stopping.wait(RETRY_AFTER):
                    self.dropped += len(bars)
                    return
                continue
            if lost:
                log.warning("Redis takes bars again; %d were not forwarded", self.dropped)
            self.forwarded += len(bars)
            return

    def _send(self, bars: Sequence[Bar]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for bar in bars:
                pipeline.publish(DATA_CHANNEL, payload(bar))
            pipeline.execute()

    def _drop_oldest(self) -> None:
        try:
            self.dropped += len(self._batches.get_nowait() or ())
        except queue.Empty:  # the thread was faster
            return


def payload(bar: Bar) -> bytes:
    """The bar as it is published; the timestamp is the minute's start, ISO 8601, UTC."""
    return orjson.dumps(
        {
            "symbol": bar.symbol,
            "timestamp": bar.ts,
            "open": bar.open,
            "high": bar.high,
            "low": bar.low,
            "close": bar.close,
            "volume": bar.volume,
        },
        option=orjson.OPT_UTC_Z,
        default=float,
    )
