"""Whatever goes wrong, in the end the table holds what the vendor holds, and nothing is owed.

A market is played while at random times connections are cut, the feed falls silent, ingest is killed
and the database crashes; bars come late, twice, wrong at first, out of order, with garbage between;
REST has its own troubles. More faults than the suite takes: TICKSTOCK_TEST_FAULTS=2000.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests.conftest import Engine
from tickstock.db.connection import connect, fetch_value
from tickstock.simulator import Faults, RandomMarket, Simulator

from .hand_fed import OPENING
from .hardship import cut_connections, database_gone
from .program import KEY, Program, eventually, run, until
from .proxy import Proxy

FAULTS = int(os.environ.get("TICKSTOCK_TEST_FAULTS", "200"))
SYMBOLS = 20
SPEED = 900
RATES = {
    # Of the stream, for each of its bars.
    "duplicate": 0.005,
    "late": 0.005,
    "out_of_order": 0.005,
    "corrected": 0.005,
    "garbage": 0.02,
    # Of REST, for each request.
    "rest_429": 0.05,
    "rest_5xx": 0.05,
    "rest_cut": 0.05,
    "rest_null": 0.5,
}
CHECKPOINTER = "select pid from pg_stat_activity where backend_type = 'checkpointer'"
ENDS = ("drop", "silence", "half_open", "slow_consumer", "slow_consumer_1011")
"""How the simulator ends a connection. A crowded key is not among them: it is waited out for minutes."""


class Chaos:
    """What goes wrong, one thing at a time."""

    def __init__(self, simulator: Simulator, url: str, seed: int) -> None:
        self.struck: Counter[str] = Counter()
        self._random = Random(seed)
        self._simulator = simulator
        self._url = url
        self._feed = Proxy(("127.0.0.1", urlsplit(simulator.url).port or 0))
        self._database = Proxy(_socket_of(url))
        self._ingest: Program | None = None
        self._kinds: dict[str, Callable[[], None]] = {
            **{name: lambda name=name: simulator.inject(name) for name in ENDS},  # type: ignore[misc]
            "feed cut by a proxy": self._feed.cut,
            "database cut by a proxy": self._database.cut,
            "database's sessions ended": self._end_sessions,
            "database gone for a while": self._database_away,
            "database crashed": self._crash_database,
            "ingest killed": self._kill,
        }

    @contextmanager
    def begun(self) -> Iterator["Chaos"]:
        with psycopg.connect(self._url, autocommit=True) as conn:
            # A crash must not take back what was committed; on the tests' servers it may, by default.
            name = Identifier(conn.info.dbname)
            conn.execute(SQL("alter database {} set synchronous_commit = on").format(name))
        with self._feed, self._database:
            self._start()
            try:
                yield self
            finally:
                assert self._ingest
                self._ingest.process.kill()
                self._ingest.wait()

    def strike(self) -> None:
        kind = self._random.choice(list(self._kinds))
        self._kinds[kind]()
        self.struck[kind] += 1

    def end(self, last: datetime) -> None:
        """Stop once the market's last minute is there: what an operator's stop cuts off is not owed."""
        assert self._ingest
        self._ingest.await_error("feed: ")  # before, it has no ear for signals
        until(self._url, "select latest_minute()", last)
        assert self._ingest.stop() == 0, "".join(self._ingest.errors)
        self._check(self._ingest)

    def settings(self) -> dict[str, str]:
        """Of ingest, by way of the proxies."""
        return {
            "MASSIVE_API_KEY": KEY,
            "TICKSTOCK_FEED_URL": f"ws://127.0.0.1:{self._feed.port}/stocks",
            "TICKSTOCK_REST_URL": self._simulator.rest_url,
            "TICKSTOCK_DATABASE_URL": make_conninfo(
                self._url, host="127.0.0.1", port=self._database.port, sslmode="disable"
            ),
            "TICKSTOCK_SILENCE_LIMIT": "1",
            "TICKSTOCK_SPILL_AFTER": self._random.choice(["0", "64"]),
        }

    def _start(self) -> None:
        self._ingest = Program("ingest", "--symbols", "*", **self.settings())

    def _kill(self) -> None:
        assert self._ingest
        self._ingest.stop(signal.SIGKILL)
        self._check(self._ingest)
        self._start()

    def _check(self, ingest: Program) -> None:
        said = "".join(ingest.errors)
        assert "Traceback" not in said, said
        assert KEY not in said

    def _end_sessions(self) -> None:
        cut_connections(self._url)

    def _database_away(self) -> None:
        with database_gone(self._url):
            before = self._simulator.clock or OPENING
            eventually(lambda: self._later(before, 10), "ten minutes pass")

    def _crash_database(self) -> None:
        """End one of the server's processes as a bug would: it starts anew, and recovers."""
        with psycopg.connect(self._url) as conn:
            checkpointer = fetch_value(conn, CHECKPOINTER)
        os.kill(checkpointer, signal.SIGKILL)
        eventually(lambda: self._has_another(checkpointer), "the database is back")

    def _has_another(self, checkpointer: int) -> bool:
        """Whether the server answers that started anew: for a moment the old one may, too."""
        try:
            with psycopg.connect(self._url) as conn:
                return bool(fetch_value(conn, CHECKPOINTER) != checkpointer)
        except psycopg.OperationalError:
            return False

    def _later(self, than: datetime, minutes: int) -> bool:
        clock = self._simulator.clock or OPENING
        return self._simulator.finished.is_set() or clock >= than + timedelta(minutes=minutes)

    def pause(self) -> None:
        """Some minutes of the market."""
        before, minutes = self._simulator.clock or OPENING, self._random.randint(0, 25)
        eventually(lambda: self._later(before, minutes), f"{minutes} minutes pass")


def _socket_of(url: str) -> tuple[str, int] | str:
    given = conninfo_to_dict(url)
    host, port = str(given["host"]), int(given.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def bars_in(url: str) -> dict[tuple[str, datetime], tuple[float, ...]]:
    with connect(url, program="test") as conn:
        rows = conn.execute("select symbol, ts, open, high, low, close, volume from ohlcv_1min")
        return {(row[0], row[1].astimezone(UTC)): tuple(map(float, row[2:])) for row in rows}


def test_in_the_end_the_table_holds_what_the_vendor_holds(
    engine: Engine, url: str, record_property: Callable[[str, object], None]
) -> None:
    market = RandomMarket(
        SYMBOLS, seed=5, start=OPENING, end=OPENING + timedelta(minutes=390 * FAULTS / 200)
    )
    faults = Faults(RATES, seed=11)
    with (
        Simulator(market, keys=[KEY], closes=True, speed=SPEED, faults=faults) as simulator,
        Chaos(simulator, url, seed=7).begun() as chaos,
    ):
        while not simulator.finished.is_set():
            chaos.pause()
            chaos.strike()
        chaos.end(max(ts for _, ts in simulator.truth()))
        done = run("backfill", **chaos.settings())
        assert done.returncode == 0, done.stderr
        assert "nothing is owed" in done.stdout, run("gaps", **chaos.settings()).stdout
        wanted = {key: tuple(map(float, bar[2:7])) for key, bar in simulator.truth().items()}
    assert bars_in(url) == wanted
    with connect(url, program="test") as conn:
        assert fetch_value(conn, "select count(*) from feed_gaps") == 0
    struck = faults.counts + chaos.struck
    record_property("faults", struck.total())
    record_property("of connections and processes", chaos.struck.total())
    assert struck.total() >= FAULTS
