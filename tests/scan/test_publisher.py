"""Publishing on a real Redis: at least once each, in order, also after Redis was away."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import DEADLINE, eventually, new_york, on_one_engine, terminate
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.redis import PATTERNS_CHANNEL
from tickstock.scan import publisher as publisher_module
from tickstock.scan.publisher import BATCH, Publisher

pytestmark = pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")

OPENING = new_york("2025-11-24 09:30")
RECORD = """
select tickstock.record_events(array_agg('Doji'::text), array_agg('S' || n), array_agg('1min'::text),
  array_agg(%s::timestamptz), array_agg('neutral'::text), array_agg(10.50), array_agg('{}'::jsonb), true)
from generate_series(%s::integer, %s) n
"""
UNPUBLISHED = "select count(*) from events where published_at is null"
PAYLOADS = "select tickstock.event_payload(e)::text from events e order by id"


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "POLL", 0.1)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


def record(conn: Connection[TupleRow], first: int, last: int) -> None:
    conn.execute(RECORD, (OPENING, first, last))


def payloads(conn: Connection[TupleRow]) -> list[str]:
    return [payload for (payload,) in conn.execute(PAYLOADS).fetchall()]


class Subscriber:
    """Hears the channel of events from its making."""

    def __init__(self, redis_url: str) -> None:
        self.heard: list[str] = []
        self._client = redis.Redis.from_url(redis_url)
        self._channel = self._client.pubsub()  # type: ignore[no-untyped-call]
        self._channel.subscribe(PATTERNS_CHANNEL)
        assert self._channel.get_message(timeout=DEADLINE)["type"] == "subscribe"

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._client.close()

    def hear(self, number: int) -> list[str]:
        """Wait until so many messages have come; all that have come until now."""

        def enough() -> bool:
            while message := self._channel.get_message(timeout=0.05):
                self.heard.append(message["data"].decode())
            return len(self.heard) >= number

        eventually(enough, f"{number} messages")
        return self.heard


@contextmanager
def publishing(url: str, redis_url: str) -> Iterator[Publisher]:
    stop = threading.Event()
    publisher = Publisher(url, redis_url, stop)
    publisher.start()
    try:
        yield publisher
    finally:
        stop.set()
        publisher.wake()
        publisher.join(DEADLINE)
    assert not publisher.is_alive()


def test_each_event_once_in_the_order_of_ids(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    number = BATCH + 20
    record(conn, 1, number)
    with Subscriber(redis_url) as subscriber, publishing(url, redis_url) as publisher:
        eventually(lambda: publisher.published == number, "what waited is published")
        record(conn, number + 1, number + 3)
        publisher.wake()
        eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "what came is published")
        assert subscriber.hear(number + 3) == payloads(conn)
    assert '"price": 10.50' in subscriber.heard[0], "the price with all its digits"
    assert json.loads(subscriber.heard[0])["timestamp"] == "2025-11-24T14:30:00Z"
    never = "select count(*) from events where published_at < detected_at"
    assert fetch_value(conn, never) == 0


@on_one_engine
def test_it_finds_events_that_nobody_told_it_of(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    """Polling is the guarantee, waking only shortens the wait."""
    with Subscriber(redis_url) as subscriber, publishing(url, redis_url) as publisher:
        record(conn, 1, 1)
        eventually(lambda: publisher.published == 1, "the first, by polling at the latest")
        record(conn, 2, 2)
        assert subscriber.hear(2) == payloads(conn)


@on_one_engine
def test_what_was_recorded_before_the_end_is_published_by_then(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    with Subscriber(redis_url) as subscriber:
        with publishing(url, redis_url):
            record(conn, 1, 5)
        assert fetch_value(conn, UNPUBLISHED) == 0
        assert subscriber.hear(5) == payloads(conn)


@contextmanager
def redis_back(conn: Connection[TupleRow], path: Path) -> Iterator[Subscriber]:
    """Redis under this path, where nothing is published before somebody listens."""
    with ExitStack() as stack:
        with conn.transaction():
            conn.execute("select pg_advisory_xact_lock(hashtext('tickstock.publish'))")
            server = stack.enter_context(embedded_redis(path))
            subscriber = stack.enter_context(Subscriber(server))
        yield subscriber


@on_one_engine
def test_an_outage_of_redis_loses_nothing(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    with TemporaryDirectory(prefix="t-") as folder:
        path = Path(folder) / "redis.sock"
        with publishing(url, f"unix://{path}?db=0") as publisher:
            for n in range(3):  # not there at first, then away twice
                record(conn, 2 * n, 2 * n + 1)
                publisher.wake()
                eventually(lambda: "Redis does not take events" in caplog.text, "it says so")
                assert fetch_value(conn, UNPUBLISHED) == 2
                with redis_back(conn, path) as subscriber:
                    assert subscriber.hear(2) == payloads(conn)[-2:]
                    eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
                eventually(lambda: "Redis takes events again" in caplog.text, "it says so, too")
                caplog.clear()


@on_one_engine
def test_a_publisher_that_dies_before_it_has_marked_sends_again(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    record(conn, 1, 2)
    with Subscriber(redis_url) as subscriber, connect(url, program="test") as blocker:
        # The mark waits for this row; the sending, which comes before it, does not.
        blocker.execute("begin")
        blocker.execute("select from events where symbol = 'S2' for update")
        with publishing(url, redis_url):
            sent = list(subscriber.hear(2))
            assert terminate(conn, "publish") == 1
            assert fetch_value(conn, UNPUBLISHED) == 2
            blocker.execute("commit")
            eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
        assert sent == payloads(conn)
        assert subscriber.hear(4) == sent + sent


@on_one_engine
def test_two_publishers_send_each_event_once(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    with (
        Subscriber(redis_url) as subscriber,
        publishing(url, redis_url) as one,
        publishing(url, redis_url) as other,
    ):
        for n in range(100):
            record(conn, 3 * n, 3 * n + 2)
            one.wake()
            other.wake()
        eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
        eventually(lambda: one.published + other.published == 300, "all is counted")
        assert subscriber.hear(300) == payloads(conn)
    assert len(subscriber.hear(300)) == 300
