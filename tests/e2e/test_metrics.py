"""What an ingest tells Prometheus, against what the simulator has sent and done."""

import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tickstock.embedded.redis import embedded_redis
from tickstock.ingest.metrics import CLASSES, classify
from tickstock.simulator import Simulator

from .hand_fed import OPENING, bar, bars, hand_fed
from .hardship import database_gone, market
from .program import DEADLINE, KEY, Program, await_connected, eventually, run, running, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

INGEST = ("ingest", "--symbols", "*", "--metrics-port", "0")


class Metrics:
    """The metrics of a running ingest; a sample's name is that of the metric and its labels' values."""

    def __init__(self, ingest: Program) -> None:
        ingest.await_error("metrics: http://")
        (url,) = re.findall(r"metrics: (http://127.0.0.1:\d+/metrics)\n", "".join(ingest.errors))
        self.url: str = url

    def read(self) -> dict[str, float]:
        text = urllib3.request("GET", self.url, timeout=DEADLINE).data.decode()
        return {
            " ".join([sample.name, *sample.labels.values()]).removeprefix(
                "tickstock_"
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def until(self, name: str, wanted: float) -> dict[str, float]:
        """Wait until the sample has at least this value; all samples at that moment."""
        read: dict[str, float] = {}

        def reached() -> bool:
            read.update(self.read())
            return read.get(name, -1) >= wanted

        eventually(reached, f"{name} {wanted}")
        return read


def test_a_market_with_cut_connections(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        embedded_redis() as redis_url,
        Simulator(market(20, 390), keys=[KEY], speed=1_200) as simulator,
        running(
            *INGEST, "--feed-url", simulator.url, "--rest-url", simulator.rest_url,
            "--redis-url", redis_url, **settings,
        ) as ingest,
    ):  # fmt: skip
        metrics = Metrics(ingest)
        metrics.until("bars_received_total", 1)
        for number, fault in enumerate(("slow_consumer", "slow_consumer_1011", "drop"), 1):
            simulator.inject(fault)
            metrics.until("connections_total", number + 1)
            before = metrics.read()["bars_received_total"]
            metrics.until("bars_received_total", before + 1)
        assert simulator.finished.wait(DEADLINE)
        until(url, "select count(*) from ohlcv_1min", len(simulator.truth()))
        told = metrics.until("filler_bars_total", 1)
        assert told["drops_total slow_consumer"] == 2
        assert sum(told[f"drops_total {name}"] for name in CLASSES) == 3
        assert told["feed_state streaming"] == 1
        assert sum(value for name, value in told.items() if name.startswith("feed_state")) == 1
        last_minute = OPENING + timedelta(minutes=389)
        assert told["feed_clock_seconds"] == last_minute.timestamp()
        assert told["filler_calls_total"] > 0
        assert told["process_resident_memory_bytes"] > 2**20
        told = metrics.until("redis_forwarded_total", told["bars_received_total"])
        assert told["redis_dropped_total"] == 0
        assert ingest.stop() == 0
    assert {
        "received": ingest.counts.received,
        "inserted": ingest.counts.inserted,
        "replaced": ingest.counts.replaced,
        "unchanged": ingest.counts.unchanged,
        "refused": ingest.counts.refused,
    } == {"received": told["bars_received_total"]} | {
        outcome: told[f"bars_total {outcome}"]
        for outcome in ("inserted", "replaced", "unchanged", "refused")
    }


def test_what_waits_for_the_database_and_how_late_bars_are(url: str) -> None:
    settings = {
        "TICKSTOCK_DATABASE_URL": url,
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_SPILL_AFTER": "0",
    }
    with hand_fed() as feed, running(*INGEST, "--feed-url", feed.url, **settings) as ingest:
        metrics = Metrics(ingest)
        await_connected(url, "ingest")
        assert "lag_seconds" not in metrics.read()
        with database_gone(url):
            feed.send(*bars("A", range(3)))
            feed.await_received()
            ingest.await_error("database gone")
            feed.send(*bars("B", range(3)))
            assert metrics.until("spilled_bytes", 100)["bars_received_total"] == 0
        told = metrics.until("bars_total inserted", 6)
        lag = (datetime.now(UTC) - OPENING).total_seconds() - 180
        assert told["lag_seconds"] == pytest.approx(lag, abs=DEADLINE)
        # A late bar is not how late the feed is.
        feed.send(bar("LATE", 0))
        assert metrics.until("bars_total inserted", 7)["lag_seconds"] == told["lag_seconds"]
        feed.send(bar("A", 1, v=7), bar("A", 3, v=-1), bar("B", 1))
        told = metrics.until("bars_total unchanged", 1)
        assert (told["bars_total replaced"], told["bars_total refused"]) == (1, 1)
        eventually(lambda: metrics.read()["spilled_bytes"] == 0, "the spill file is empty")
        assert ingest.stop() == 0


def test_frames_wait_until_they_are_stored_though_they_have_been_parsed(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed, running(*INGEST, "--feed-url", feed.url, **settings) as ingest:
        metrics = Metrics(ingest)
        await_connected(url, "ingest")
        with database_gone(url):
            for minute in range(5):
                feed.send(bar("A", minute))
            feed.await_received()
            ingest.await_error("database gone")
            told = metrics.until("frames_waiting", 5)
            assert (told["bars_received_total"], told["spilled_bytes"]) == (0, 0)
        metrics.until("bars_total inserted", 5)
        eventually(lambda: metrics.read()["frames_waiting"] == 0, "nothing waits any more")
        assert ingest.stop() == 0
    assert "; 0 frames waiting; " in ingest.errors[-1]


def test_a_port_in_use(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            "ingest", "--symbols", "A", "--metrics-port", str(port),
            "--feed-url", "ws://127.0.0.1:1/stocks", "--database-url", url, MASSIVE_API_KEY=KEY,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"Error: port {port} on 127.0.0.1 is in use" in done.stderr


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("another client uses this API key (closed by the feed: 1008 …)", "another_client"),
        ("closed by the feed: 1008 slow consumer", "slow_consumer"),
        ("closed by the feed: 1011", "slow_consumer"),
        ("closed by the feed: 1000", "closed"),
        ("connection lost: the other side hung up", "lost"),
        ("dead: silent for 30.1 s, and no answer to a ping", "dead"),
        ("silent: no data for 121 s, in a regular session", "silent"),
        ("cannot connect: connection refused", "cannot_connect"),
        ("no greeting within 10 s", "other"),
    ],
)
def test_classes_of_drops(reason: str, kind: str, engine: object) -> None:
    assert classify(reason) == kind
