"""Forwarding stored bars to Redis, beside the pipeline: Redis gone never delays a bar."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from tickstock.bars import Bar
from tickstock.ingest.ledger import Complete
from tickstock.redis import DATA_CHANNEL, MINUTES_CHANNEL, RedisError, client

log = logging.getLogger(__name__)

WAITING_LIMIT = 200_000
"""Bars that wait for Redis before the oldest are dropped; the table has them all."""
RETRY_AFTER = 2.0
"""Seconds between tries when Redis does not answer."""


class Forwarder(threading.Thread):
    """Publishes bars on the channel `tickstock_data`, as `symbol, timestamp, open … volume`, and the
    minutes that are complete by them on `tickstock_minutes`, as `minute, bars, lag`.

    Publish and subscribe keeps nothing for those who are away, and so does this: what Redis can't
    take for long is dropped and counted, never held against the pipeline.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="forward", daemon=True)
        self.forwarded = 0
        self.dropped = 0
        self._redis = client(url)
        self._batches: deque[_Batch] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def offer(self, bars: Sequence[Bar], complete: Sequence[Complete] = ()) -> None:
        """Hand over a batch of stored bars, and the minutes complete by it; never blocks."""
        with self._changed:
            self._batches.append(_Batch(bars, complete))
            self._waiting += len(bars)
            while self._waiting > WAITING_LIMIT and len(self._batches) > 1:
                self.dropped += len(self._take().bars)
            self._changed.notify()

    def close(self) -> None:
        """Publish what waits, as far as Redis takes it now, and end."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self.join(timeout=10)
        if lost := self.dropped + self._waiting:
            log.warning("%d bars were not forwarded to Redis; the table has them", lost)

    def run(self) -> None:
        while batch := self._next():
            self._publish(batch)

    def _next(self) -> "_Batch | None":
        """The oldest batch that waits, or nothing when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._stopping.is_set())
            return self._take() if self._batches else None

    def _take(self) -> "_Batch":
        batch = self._batches.popleft()
        self._waiting -= len(batch.bars)
        return batch

    def _publish(self, batch: "_Batch") -> None:
        lost = False
        while True:
            try:
                self._send(batch)
            except RedisError as error:
                if not lost:
                    log.warning("Redis does not take bars, the table does: %s", error)
                lost = True
                if self._stopping.wait(RETRY_AFTER):
                    with self._changed:
                        self.dropped += len(batch.bars)
                    return
                continue
            if lost:
                log.warning("Redis takes bars again")
            self.forwarded += len(batch.bars)
            return

    def _send(self, batch: "_Batch") -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for bar in batch.bars:
                pipeline.publish(DATA_CHANNEL, payload(bar))
            for minute in batch.complete:
                told = minute_payload(minute, datetime.now(UTC))
                pipeline.publish(MINUTES_CHANNEL, told)
            pipeline.execute()


class _Batch(NamedTuple):
    bars: Sequence[Bar]
    complete: Sequence[Complete]


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


def minute_payload(minute: Complete, at: datetime) -> bytes:
    """A complete minute as it is published `at` that time; its lag is in seconds after the minute's end."""
    lag = (at - minute.ts - timedelta(minutes=1)).total_seconds()
    told = {"minute": minute.ts, "bars": minute.bars, "lag": round(lag, 3)}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z)
