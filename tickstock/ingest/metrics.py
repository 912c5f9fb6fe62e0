"""What Prometheus may know of an ingest: read off the pipeline when it is asked for, counted nowhere else."""

import errno
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, StateSetMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tickstock.errors import TickstockError
from tickstock.feed.client import FeedClient, State
from tickstock.ingest.pipeline import Ingest

REASONS = (
    ("another client uses", "another_client"),
    ("slow consumer", "slow_consumer"),
    ("closed by the feed: 1011", "slow_consumer"),
    ("dead: ", "dead"),
    ("silent: ", "silent"),
    ("cannot connect", "cannot_connect"),
    ("closed by the feed", "closed"),
    ("connection lost", "lost"),
)
"""How a drop's reason begins or what it says, and its class; the first that fits, else `other`."""
CLASSES = (*dict.fromkeys(name for _, name in REASONS), "other")


@contextmanager
def served(ingest: Ingest, host: str, port: int) -> Iterator[int]:
    """Answer `GET /metrics` for the length of the block; the port, which is a free one for 0.

    Raises TickstockError when the port can't be had.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(IngestCollector(ingest))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        what = "is in use" if in_use else f"can't be used ({error.strerror})"
        raise TickstockError(
            f"port {port} on {host} {what}: metrics need another one, --metrics-port "
            "(TICKSTOCK_METRICS_PORT), or another --metrics-host (TICKSTOCK_METRICS_HOST)"
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class IngestCollector(Collector):
    """The state of an ingest as metrics; names begin with `tickstock_`, times are in seconds."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._drops = _Drops(ingest.client)

    def collect(self) -> Iterator[Metric]:
        yield from self._bars()
        yield from self._waiting()
        yield from self._connection()
        yield from self._filler()
        yield from self._forwarder()

    def _bars(self) -> Iterator[Metric]:
        counts = self._ingest.counts
        yield _counter("bars_received", "Bars of the feed that were judged.", counts.received)
        outcome = CounterMetricFamily(
            "tickstock_bars", "What became of them; adds up to bars_received.", labels=["outcome"]
        )
        for name in ("inserted", "replaced", "unchanged", "refused"):
            outcome.add_metric([name], getattr(counts, name))
        yield outcome
        if self._ingest.feed_time is not None:
            yield _gauge(
                "feed_clock_seconds",
                "Start of the newest minute stored last, seconds since the epoch.",
                self._ingest.feed_time.timestamp(),
            )
        if self._ingest.lag is not None:
            yield _gauge(
                "lag_seconds",
                "From the end of the newest minute stored last to the receipt of its bar.",
                self._ingest.lag.total_seconds(),
            )

    def _waiting(self) -> Iterator[Metric]:
        inbox = self._ingest.inbox
        waiting = inbox.behind(0)
        yield _gauge("frames_waiting", "Frames in memory that are not stored.", waiting.items)
        yield _gauge("spilled_bytes", "Bytes that wait in the spill file.", waiting.spilled)
        yield _counter("frames_lost", "Frames that neither memory nor disk could take.", inbox.lost)

    def _connection(self) -> Iterator[Metric]:
        client = self._ingest.client
        yield _counter(
            "connections", "Connections to the feed that were opened.", client.connections
        )
        yield _counter("frames_received", "Frames that came from the feed.", client.frames)
        yield _counter("received_bytes", "Their size.", client.bytes)
        drops = CounterMetricFamily(
            "tickstock_drops", "Connections lost or not come about, by reason.", labels=["reason"]
        )
        for name, number in self._drops.counts().items():
            drops.add_metric([name], number)
        yield drops
        states = {str(state): state is client.state for state in State}
        yield StateSetMetricFamily("tickstock_feed_state", "What the feed's client does.", states)

    def _filler(self) -> Iterator[Metric]:
        filler = self._ingest.filler
        if filler is None:
            return
        yield _counter("filler_calls", "Requests to REST, retries included.", filler.calls.calls)
        yield _counter("filler_retries", "Requests sent again.", filler.calls.retries)
        yield _counter("filler_throttled", "Answers of too many requests.", filler.calls.throttled)
        yield _counter("filler_bars", "Bars that REST told.", filler.counts.received)
        changed = filler.counts.inserted + filler.counts.replaced
        yield _counter("filler_bars_changed", "Bars that were missing or other.", changed)

    def _forwarder(self) -> Iterator[Metric]:
        forwarder = self._ingest.forwarder
        if forwarder is None:
            return
        yield _counter("redis_forwarded", "Bars published on Redis.", forwarder.forwarded)
        yield _counter("redis_dropped", "Bars that Redis did not take in time.", forwarder.dropped)


class _Drops:
    """Drops by class. The client keeps the latest and counts all: between two looks, rarely more."""

    def __init__(self, client: FeedClient) -> None:
        self._client = client
        self._seen = 0
        self._counts = Counter(dict.fromkeys(CLASSES, 0))
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        with self._lock:
            # In this order: a drop that comes in between is left for the next look.
            total, kept = self._client.drop_count, tuple(self._client.drops)
            new = total - self._seen
            latest = [drop.reason for drop in kept[-new:]] if new else []
            self._counts.update(map(classify, latest))
            self._counts["other"] += new - len(latest)
            self._seen = total
            return dict(self._counts)


def classify(reason: str) -> str:
    """The class of a drop's reason."""
    return next((name for words, name in REASONS if words in reason), "other")


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"tickstock_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tickstock_{name}", text, value=value)
