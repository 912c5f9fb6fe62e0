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

from tests.e2e.program import DEADLINE, eventually
from tests.scan.making import OPENING, event
from tests.scan.making import record as record_events
from tests.scan.support import on_one_engine, terminate
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.redis import EVENTS_KEPT, EVENTS_STREAM, PATTERNS_CHANNEL
from tickstock.scan import publisher as publisher_module
from tickstock.scan.publisher import BATCH, Publisher
from tickstock.scan.windows import Span

pytestmark = pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")

UNPUBLISHED = "select events_to_publish from tickstock.freshness"
PAYLOADS = "select tickstock.event_payload(e) from events e order by change"


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "POLL", 0.1)


@pytest.fixture(autouse=True)
def for_redis(conn: Connection[TupleRow]) -> None:
    conn.execute("call tickstock.begin_publishing()")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


def record(conn: Connection[TupleRow], first: int, last: int) -> None:
    record_events(conn, [event(f"S{n}") for n in range(first, last + 1)])


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


def test_each_event_once_in_the_order_of_changes(
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
    assert '"price": 10.5,' in subscriber.heard[0]


@on_one_engine
def test_names_with_line_ends_go_out_whole(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    symbols = ["A\n7 B", "\r\n", 'q"uote\\n', "\x7f\u2028é", "%s {}"]
    record_events(conn, [event(symbol) for symbol in symbols])
    with Subscriber(redis_url) as subscriber, publishing(url, redis_url):
        heard = subscriber.hear(len(symbols))
        eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
    assert heard == payloads(conn)
    assert sorted(json.loads(each)["symbol"] for each in heard) == sorted(symbols)
    assert json.loads(subscriber.heard[0])["timestamp"] == "2025-11-24T14:30:00Z"


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


def keep_from_marking(conn: Connection[TupleRow]) -> None:
    """Until this transaction ends; sending, which comes before, goes on."""
    conn.execute("begin")
    conn.execute("select from tickstock.publishing for update")


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
        keep_from_marking(blocker)
        with publishing(url, redis_url):
            sent = list(subscriber.hear(2))
            assert terminate(conn, "publish") == 1
            assert fetch_value(conn, UNPUBLISHED) == 2
            blocker.execute("commit")
            eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
        assert sent == payloads(conn)
        assert subscriber.hear(4) == sent + sent


WAITS = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
and application_name = 'tickstock publish' and clock_timestamp() - query_start > %s::interval
"""


@on_one_engine
def test_who_waits_to_mark_does_not_send_again(
    url: str, conn: Connection[TupleRow], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn is what it does not wait for long; once it has sent, it must mark."""
    monkeypatch.setattr(publisher_module, "LOCK_TIMEOUT", "set local lock_timeout = '50ms'")
    record(conn, 1, 2)
    with Subscriber(redis_url) as subscriber, connect(url, program="test") as blocker:
        keep_from_marking(blocker)
        with publishing(url, redis_url):
            eventually(lambda: fetch_value(conn, WAITS, "200ms") == 1, "it waits for longer")
            blocker.execute("commit")
            eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
        assert len(subscriber.hear(2)) == 2


@on_one_engine
def test_it_ends_though_another_one_is_at_it_for_long(
    url: str, conn: Connection[TupleRow], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose Redis does not answer."""
    monkeypatch.setattr(publisher_module, "LOCK_TIMEOUT", "set local lock_timeout = '200ms'")
    record(conn, 1, 1)
    with connect(url, program="test") as other, other.transaction():
        other.execute("select pg_advisory_xact_lock(hashtext('tickstock.publish'))")
        with publishing(url, redis_url):
            eventually(lambda: fetch_value(conn, WAITS, "0") == 1, "it waits for its turn")
    assert fetch_value(conn, UNPUBLISHED) == 1


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


def stream(redis_url: str) -> list[tuple[int, str]]:
    """Change and event of each entry of the stream."""
    with redis.Redis.from_url(redis_url) as client:
        entries = client.xrange(EVENTS_STREAM)
    return [(int(fields[b"change"]), fields[b"event"].decode()) for _, fields in entries]


@on_one_engine
def test_the_stream_keeps_what_was_published_for_those_who_were_away(
    url: str, conn: Connection[TupleRow]
) -> None:
    with embedded_redis() as own:
        record(conn, 1, 3)
        with publishing(url, own) as publisher:
            eventually(lambda: publisher.published == 3, "it is published")
        told = stream(own)
        assert [payload for _, payload in told] == payloads(conn)
        assert [change for change, _ in told] == [json.loads(p)["change"] for _, p in told]


@on_one_engine
def test_the_stream_is_capped(
    url: str, conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EVENTS_KEPT == 100_000
    monkeypatch.setattr(publisher_module, "EVENTS_KEPT", 100)
    with embedded_redis() as own:
        record(conn, 1, 1_000)
        with publishing(url, own) as publisher:
            eventually(lambda: publisher.published == 1_000, "it is published")
        kept = stream(own)
    assert 100 <= len(kept) < 400, "cut by whole nodes of the stream"
    assert [payload for _, payload in kept] == payloads(conn)[-len(kept) :]


@on_one_engine
def test_what_changes_between_reading_and_marking_is_published_again(
    url: str, conn: Connection[TupleRow], redis_url: str
) -> None:
    record(conn, 1, 2)
    with Subscriber(redis_url) as subscriber, connect(url, program="test") as recorder:
        keep_from_marking(recorder)
        with publishing(url, redis_url):
            first = list(subscriber.hear(2))  # sent, not yet marked
            record_events(recorder, [event("S2", price=11.0)])
            recorder.execute("commit")
            subscriber.hear(3)
            eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
        changed = json.loads(subscriber.heard[2])
    before = json.loads(first[1])
    assert (changed["symbol"], changed["price"], before["price"]) == ("S2", 11.0, 10.5)
    assert changed["change"] > before["change"]
    assert len(subscriber.heard) == 3


@on_one_engine
def test_a_retraction_is_published(url: str, conn: Connection[TupleRow], redis_url: str) -> None:
    record(conn, 1, 2)
    with Subscriber(redis_url) as subscriber, publishing(url, redis_url) as publisher:
        subscriber.hear(2)
        record_events(conn, [], judged=[Span("S1", OPENING, OPENING)])
        publisher.wake()
        told = [json.loads(payload) for payload in subscriber.hear(3)]
    assert [(each["symbol"], each["retracted"]) for each in told] == [
        ("S1", False), ("S2", False), ("S1", True),
    ]  # fmt: skip
    assert told[2]["id"] == told[0]["id"]


@on_one_engine
def test_a_redis_without_memory_gets_all_or_nothing(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    """Refusing the stream's entry alone would publish the same again and again."""
    with embedded_redis() as own, redis.Redis.from_url(own) as client:
        client.config_set("maxmemory", 1)
        record(conn, 1, 3)
        with Subscriber(own) as subscriber, publishing(url, own):
            eventually(lambda: "Redis does not take events" in caplog.text, "it says so")
            assert fetch_value(conn, UNPUBLISHED) == 3
            client.config_set("maxmemory", 0)
            eventually(lambda: fetch_value(conn, UNPUBLISHED) == 0, "all is marked")
            assert subscriber.hear(3) == payloads(conn)
        assert len(subscriber.heard) == 3
