"""The database or Redis gone for a while, a scanner killed: nothing is lost."""

import re
import resource
import signal
import socket
from functools import partial
from os import dup
from pathlib import Path

import pytest
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from tests.conftest import Engine
from tickstock.cli.ingest import spill_path
from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import Counts, write_bars
from tickstock.embedded.redis import embedded_redis
from tickstock.simulator import Simulator

from .channel import Channel
from .hand_fed import bars, hand_fed
from .hardship import cut_connections, database_gone, events, market, undisturbed_events
from .program import DEADLINE, KEY, await_connected, eventually, run, running, stop_all, until
from .proxy import Proxy

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

SPILL_AT_ONCE = {"TICKSTOCK_SPILL_AFTER": "0"}
STORED = "select count(*) from ohlcv_1min"
UNPUBLISHED = "select events_to_publish from tickstock.freshness"
WAITS_FOR_A_LOCK = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and application_name = 'tickstock ingest' and wait_event_type = 'Lock'"
)
COMPLETE_AND_WAITING = (
    "select count(*) from tickstock.scan_queue where ready_at <= (select max(ts) from ohlcv_1min)"
)


def test_connections_cut_again_and_again_lose_no_bar_and_no_event(
    engine: Engine, url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        Simulator(market(20, 90), keys=[KEY], speed=3_600) as simulator,
        running("scan", **settings) as scan,
        running("ingest", "--symbols", "*", "--feed-url", simulator.url, **settings) as ingest,
    ):
        for number in (100, 600, 1_100):
            until(url, "select count(*) >= %s from ohlcv_1min", True, number)
            assert cut_connections(url) > 0
        assert simulator.finished.wait(DEADLINE)
        until(url, STORED, len(simulator.sent))
        until(url, COMPLETE_AND_WAITING, 0)
        assert stop_all(ingest, scan) == [0, 0]
    number = len(simulator.sent)
    counts = ingest.counts
    # A batch whose commit was not acknowledged is written again, and found there.
    assert counts == Counts(number, number - counts.unchanged, unchanged=counts.unchanged)
    assert events(url) == undisturbed_events(engine, simulator.sent.values())


def test_a_batch_is_written_again_when_its_connection_is_cut_in_the_middle(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
    ):
        await_connected(url, "ingest")
        with conn.transaction():
            conn.execute("lock table ohlcv_1min in exclusive mode")
            feed.send(*bars("A", range(10)))
            until(url, WAITS_FOR_A_LOCK, 1)
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'tickstock ingest'"
            )
            ingest.await_error("database gone, 10 bars wait")
        until(url, STORED, 10)
        # The subscription goes on, and so does the stretch.
        until(url, "select array_agg(alive) from feed_live", [True])
        assert ingest.stop() == 0
    assert ingest.counts == Counts(received=10, inserted=10)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="known to Linux only")
def test_a_machine_that_vanishes_is_given_up_within_a_minute_by_both_sides(url: str) -> None:
    """Loopback loses no packets, so the kernel is asked what it would do."""
    given = conninfo_to_dict(url)
    target = f"{given['host']}/.s.PGSQL.{given.get('port') or 5432}"
    with Proxy(target) as proxy:
        over_tcp = make_conninfo(url, host="127.0.0.1", port=proxy.port)
        with (
            connect(over_tcp, program="test") as conn,
            socket.socket(fileno=dup(conn.fileno())) as s,
        ):
            option = partial(s.getsockopt, socket.IPPROTO_TCP)
            assert option(socket.TCP_USER_TIMEOUT) == 60_000
            idle, each = option(socket.TCP_KEEPIDLE), option(socket.TCP_KEEPINTVL)
            assert idle + each * option(socket.TCP_KEEPCNT) == 60
            # The server hears the proxy by its Unix socket, where it answers 0 to `show`.
            server = "select name from pg_settings where name like 'tcp%' and source = 'session'"
            assert sorted(name for (name,) in conn.execute(server)) == [
                "tcp_keepalives_count",
                "tcp_keepalives_idle",
                "tcp_keepalives_interval",
                "tcp_user_timeout",
            ]
        own = make_conninfo(over_tcp, tcp_user_timeout=5_000, keepalives_idle=7)
        with connect(own, program="test") as conn, socket.socket(fileno=dup(conn.fileno())) as s:
            option = partial(s.getsockopt, socket.IPPROTO_TCP)
            assert option(socket.TCP_USER_TIMEOUT) == 5_000
            assert option(socket.TCP_KEEPIDLE) == 7


@pytest.mark.parametrize("spill_after", ["64", "0"])
def test_each_batch_tells_what_waits_behind_it(
    url: str, conn: Connection[TupleRow], spill_after: str
) -> None:
    conn.execute("create table told (frames int, bytes bigint, stored_after interval)")
    conn.execute(
        "create function tell() returns trigger language plpgsql as $$ begin"
        " insert into told values (new.frames_waiting, new.spilled_bytes, new.stored_after);"
        " return null; end $$"
    )
    conn.execute(
        "create trigger tell after update of frames_waiting on feed_stretches"
        " for each row execute function tell()"
    )
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("--symbols", "*", "--spill-after", spill_after)
    with (
        hand_fed() as feed,
        running("ingest", *arguments, "--feed-url", feed.url, **settings) as ingest,
    ):
        await_connected(url, "ingest")
        with conn.transaction():
            conn.execute("lock table ohlcv_1min in exclusive mode")
            feed.send(*bars("A", range(10)))
            until(url, WAITS_FOR_A_LOCK, 1)
            locked_at = fetch_value(conn, "select clock_timestamp()")
            for minute in range(10, 15):
                feed.send(*bars("A", range(minute, minute + 1)))
            feed.await_received()
            # So that there is a span to be told.
            until(url, "select clock_timestamp() > %s + interval '0.2 s'", True, locked_at)
        until(url, STORED, 15)
        assert ingest.stop() == 0
    first, *_, last = conn.execute("select frames, bytes, stored_after from told").fetchall()
    assert (first[0], first[1] > 0) == (5, spill_after == "0")
    assert 0.2 < first[2].total_seconds() < DEADLINE
    assert last[:2] == (0, 0)


def test_bars_wait_for_a_database_that_is_gone_for_a_while(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        running("scan", **settings) as scan,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
    ):
        await_connected(url, "scan")
        ingest.await_error("feed: streaming")
        with database_gone(url):
            feed.send(*bars("A", range(10)))
            feed.send(*bars("B", range(10)))
            feed.await_received()
            ingest.await_error("database gone")
            scan.await_error("database gone, will try again")
        until(url, STORED, 20)
        until(url, "select count(*) from events where timeframe = '1min'", 20)
        assert stop_all(ingest, scan) == [0, 0]
    assert ingest.counts == Counts(received=20, inserted=20)


def test_what_was_received_is_kept_when_ingest_is_stopped_while_the_database_is_gone(
    url: str,
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            ingest.await_error("feed: streaming")
            with database_gone(url):
                feed.send(*bars("A", range(10)))
                feed.send(*bars("B", range(10)))
                feed.await_received()
                ingest.await_error("database gone")
                assert ingest.stop() == 3
            assert "is kept in" in ingest.errors[-1]
            assert "the next ingest stores it" in ingest.errors[-1]
        with running(*arguments, **settings) as again:
            again.await_error("feed: streaming")
            until(url, STORED, 20)
            assert again.stop() == 0
    until(url, "select reason from feed_stretches order by id desc limit 1", "ingest was stopped")


def test_what_was_received_is_kept_when_nobody_waits_for_the_end(url: str) -> None:
    """A second Ctrl-C, since the first one waits for the database."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            ingest.await_error("feed: streaming")
            with database_gone(url):
                feed.send(*bars("A", range(10)))
                feed.await_received()
                ingest.await_error("database gone")
                ingest.send(signal.SIGINT)
                ingest.await_error("feed: stopped")
                assert ingest.stop(signal.SIGINT) == 1
            assert "is kept in" in "".join(ingest.errors)
        with running(*arguments, **settings) as again:
            again.await_error("feed: streaming")
            until(url, STORED, 10)
            assert again.stop() == 0


def test_what_was_received_is_kept_when_ingest_is_stopped_while_a_table_is_locked(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            await_connected(url, "ingest")
            with conn.transaction():
                conn.execute("lock table ohlcv_1min in exclusive mode")
                feed.send(*bars("A", range(10)))
                until(url, WAITS_FOR_A_LOCK, 1)
                feed.send(*bars("B", range(10)))
                feed.await_received()
                ingest.await_error("database locked, 10 bars wait")
                assert ingest.stop() == 3
            assert "is kept in" in ingest.errors[-1]
            assert "the database is locked" in ingest.errors[-1]
        with running(*arguments, **settings) as again:
            again.await_error("feed: streaming")
            until(url, STORED, 20)
            assert again.stop() == 0


def read_only(conn: Connection[TupleRow], *, on: bool) -> None:
    """As after a failover; for those who connect from now on, which all do."""
    conn.execute(
        SQL("alter database {} set default_transaction_read_only = {}").format(
            Identifier(conn.info.dbname), on
        )
    )
    conn.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where pid <> pg_backend_pid()"
        " and datname = current_database() and application_name like 'tickstock %'"
    )


def test_bars_wait_for_a_database_that_is_read_only_for_a_while(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("ingest", "--symbols", "*", "--feed-url")
    with hand_fed() as feed, running(*arguments, feed.url, **settings) as ingest:
        await_connected(url, "ingest")
        feed.send(*bars("A", range(5)))
        until(url, STORED, 5)
        read_only(conn, on=True)
        feed.send(*bars("A", range(5, 10)))
        ingest.await_error("database read-only, 5 bars wait")
        second = run(*arguments, feed.url, **settings)
        assert second.returncode == 3
        assert "is read-only" in second.stderr
        read_only(conn, on=False)
        until(url, STORED, 10)
        assert ingest.stop() == 0
    assert ingest.counts == Counts(received=10, inserted=10)


def test_what_the_database_refuses_is_kept_for_the_next_ingest(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            feed.send(*bars("FIRST", range(1)))
            until(url, STORED, 1)
            conn.execute("alter table ohlcv_1min rename to elsewhere")
            feed.send(*bars("A", range(10)))
            assert ingest.wait() == 3
        said = "".join(ingest.errors)
        assert "is kept in" in said
        assert "does not exist" in ingest.errors[-1]
        conn.execute("alter table elsewhere rename to ohlcv_1min")
        with running(*arguments, **settings) as again:
            again.await_error("feed: streaming")
            until(url, STORED, 11)
            assert again.stop() == 0


def test_what_neither_memory_nor_disk_can_take_is_told(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY, **SPILL_AT_ONCE}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            feed.send(*bars("FIRST", range(1)))
            until(url, STORED, 1)
            resource.prlimit(ingest.process.pid, resource.RLIMIT_FSIZE, (100, 100))
            with database_gone(url):
                for minute in range(3):
                    feed.send(*bars("A", range(minute, minute + 1)))
                ingest.await_error("bars are lost")
                feed.await_received()
                assert ingest.stop() == 3
        assert re.search(" frames? lost", ingest.errors[-2])


def test_what_can_not_be_kept_at_the_stop_is_told(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            feed.send(*bars("FIRST", range(1)))
            until(url, STORED, 1)
            resource.prlimit(ingest.process.pid, resource.RLIMIT_FSIZE, (100, 100))
            with database_gone(url):
                feed.send(*bars("A", range(10)))
                ingest.await_error("database gone")
                feed.await_received()
                assert ingest.stop() == 3
        assert "could not be kept" in ingest.errors[-1]


def test_the_spill_file_belongs_to_the_database_however_it_is_addressed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password, say, was wrong, and that is why the database could not be reached."""
    feed = "ws://127.0.0.1:9/stocks"
    for variable in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)

    def path(address: str) -> Path:
        with connect(address, program="test") as conn:
            return spill_path(feed, conn)

    own = path(url)
    assert path(make_conninfo(url, password="other", connect_timeout=7)) == own  # noqa: S106
    given = conninfo_to_dict(url)
    assert path(make_conninfo(url, dbname="postgres")) != own
    for name in ("host", "port", "user"):
        monkeypatch.setenv(f"PG{name.upper()}", str(given.get(name) or "5432"))
    monkeypatch.setenv("PGDATABASE", str(given["dbname"]))
    assert path("") == own
    monkeypatch.setenv("PGDATABASE", "postgres")
    assert path("") != own


def test_a_killed_ingest_leaves_its_spill_file_to_the_next_one(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY, **SPILL_AT_ONCE}
    with hand_fed() as feed:
        arguments = ("ingest", "--symbols", "*", "--feed-url", feed.url)
        with running(*arguments, **settings) as ingest:
            ingest.await_error("feed: streaming")
            with database_gone(url):
                feed.send(*bars("A", range(10)))
                feed.await_received()
                ingest.await_error("database gone")
                feed.send(*bars("B", range(10)))
                feed.await_received()
                ingest.await_error("it is kept in")
                ingest.stop(signal.SIGKILL)
        with running(*arguments, **settings) as again:
            again.await_error("it is stored first")
            until(url, STORED, 20)
            assert again.stop() == 0


def test_a_scanner_killed_again_and_again_finds_what_an_undisturbed_one_finds(
    engine: Engine, url: str, conn: Connection[TupleRow]
) -> None:
    written = [bar for minute in market(45, 120).minutes() for bar in minute.bars]
    write_bars(conn, written, source="test")
    with (
        embedded_redis() as redis_url,
        Channel(redis_url, "tickstock_patterns") as channel,
    ):
        settings = {"TICKSTOCK_DATABASE_URL": url, "TICKSTOCK_REDIS_URL": redis_url}
        for third in range(2):
            _kill_in_the_middle(url, settings, third)
        with running("scan", **settings) as scan:
            until(url, COMPLETE_AND_WAITING, 0)
            until(url, UNPUBLISHED, 0)
            assert scan.stop() == 0
        ids = {row[0] for row in conn.execute("select id from events")}
        assert {message["id"] for message in channel.await_messages(len(ids))} == ids
    assert events(url) == undisturbed_events(engine, written)


def _kill_in_the_middle(url: str, settings: dict[str, str], third: int) -> None:
    """Kill a scanner that has not finished, for as yet it can't get at all symbols."""
    before = len(events(url))
    with connect(url, program="test") as conn, conn.transaction():
        conn.execute("select from tickstock.scan_shards where shard %% 3 > %s for update", (third,))
        with running("scan", **settings) as scan:
            eventually(lambda: len(events(url)) > before, "it finds something")
            scan.process.kill()
        assert fetch_value(conn, COMPLETE_AND_WAITING) > 0, "it was not in the middle"
