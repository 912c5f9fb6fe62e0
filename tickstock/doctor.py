"""What `tickstock doctor` looks at: everything that ingest needs, without changing anything.

Each check says in a line what it found, and what to do about it. No line holds a secret.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock import redis
from tickstock.counted import counted
from tickstock.db.connection import (
    connect,
    fetch_value,
    first_line,
    is_read_only,
    require_schema,
    where,
)
from tickstock.db.source import database
from tickstock.embedded.paths import data_dir
from tickstock.errors import FeedUnreachableError, RestNotInPlanError, TickstockError
from tickstock.feed import protocol, rest
from tickstock.feed.frames import parse_frame
from tickstock.feed.opening import (
    CONNECTION_ERRORS,
    FeedSocket,
    check_url,
    describe,
    open_socket,
    redact_url,
)
from tickstock.feed.protocol import StatusKind

ANSWER_TIMEOUT = 10.0
"""Seconds for each step of a connection to the feed."""
CLOCK_TOLERANCE = timedelta(seconds=5)
REPLAY = timedelta(hours=1)
"""A clock of another feed than the vendor's that is further back is that of a replay or a simulator."""
SHORTEST_COLUMNSTORE_AFTER = timedelta(days=3)
"""Bars may be late or filled for days: over a weekend, or from the next morning's flat file."""
ENOUGH_DISK = 2 * 2**30
"""Bytes: some hours of all symbols, when the database is away."""
TOO_LITTLE_DISK = 100 * 2**20

RUNNING = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'tickstock ingest'
"""
PRIVILEGES = """
select object from tickstock.rights
where grantee = 'tickstock_writer' and kind = 'table' and not has_table_privilege(object, privilege)
group by object order by object
"""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(NamedTuple):
    check: str
    level: Level
    found: str
    """What is so, in a line."""
    remedy: str = ""
    """What to do; empty if nothing is to be done."""


@dataclass
class Settings:
    """What ingest would be given."""

    feed_url: str
    rest_url: str | None
    api_key: str | None
    database_url: str | None
    redis_url: str | None


@dataclass
class Doctor:
    """Looks at one thing after another; `findings` is an iterator, so that each is told at once."""

    settings: Settings
    _conn: Connection[TupleRow] | None = field(default=None, init=False)
    _sound: bool = field(default=False, init=False)
    """Whether the database holds the schema."""
    _live: bool | None = field(default=None, init=False)
    """Whether an ingest writes this database now; None when that can't be known."""

    def findings(self) -> Iterator[Finding]:
        """Every check in its turn; one that itself goes wrong has failed."""
        with ExitStack() as stack:
            yield from self._safely("settings", self._settings)
            yield from self._safely("database", lambda: self._database(stack))
            if self._conn is not None:
                yield from self._safely("database clock", self._clock)
                yield from self._safely("schema", self._schema)
            if self._sound:
                for name, check in (
                    ("privileges", self._privileges),
                    ("policies", self._policies),
                    ("ingest", self._ingest),
                    ("owed", self._owed),
                ):
                    yield from self._safely(name, check)
            yield from self._safely("REST", self._rest)
            yield from self._safely("feed", self._feed)
            yield from self._safely("Redis", self._redis)
            yield from self._safely("spill folder", self._spill)

    def _safely(self, name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from check()
        except TickstockError as error:
            yield Finding(name, Level.FAIL, error.message)  # which says what to do
        except psycopg.Error as error:
            yield Finding(name, Level.FAIL, f"the database refuses: {first_line(error)}", _MIGRATE)

    def _settings(self) -> Iterator[Finding]:
        given = self.settings
        try:
            check_url(given.feed_url)
            yield Finding("feed url", Level.OK, redact_url(given.feed_url))
        except FeedUnreachableError as error:
            yield Finding("feed url", Level.FAIL, error.message, "set TICKSTOCK_FEED_URL")
        if not given.api_key:
            yield Finding("key", Level.FAIL, "there is no API key", "set MASSIVE_API_KEY")
        elif not _is_key(given.api_key):
            yield Finding(
                "key", Level.FAIL, "the API key has characters that no key has",
                "set MASSIVE_API_KEY to the key alone",
            )  # fmt: skip
        else:
            yield Finding("key", Level.OK, f"is set, {len(given.api_key)} characters")

    def _database(self, stack: ExitStack) -> Iterator[Finding]:
        source = stack.enter_context(database(self.settings.database_url))
        self._conn = stack.enter_context(connect(source.url, program="doctor"))
        version = fetch_value(self._conn, "select current_setting('server_version')")
        told = f"PostgreSQL {version} at {where(source.url)}"
        if source.installation:
            yield Finding(
                "database", Level.WARN, f"{told}, started by tickstock",
                "good enough to try things; for a service set TICKSTOCK_DATABASE_URL",
            )  # fmt: skip
        else:
            yield Finding("database", Level.OK, told)

    def _clock(self) -> Iterator[Finding]:
        before = datetime.now(UTC)
        server: datetime = fetch_value(self._db, "select clock_timestamp()")
        yield _database_clock(server, before, datetime.now(UTC))

    def _schema(self) -> Iterator[Finding]:
        require_schema(self._db)
        self._sound = True
        engine = fetch_value(self._db, "select tickstock_engine()")
        yield Finding("schema", Level.OK, f"matches this version of tickstock; engine {engine}")

    def _privileges(self) -> Iterator[Finding]:
        lacking = [row[0] for row in self._db.execute(PRIVILEGES)]
        user = self._db.info.user
        if is_read_only(self._db):
            yield Finding(
                "privileges", Level.FAIL, "the database is read-only, a standby perhaps",
                "set TICKSTOCK_DATABASE_URL to the primary",
            )  # fmt: skip
        elif lacking:
            yield Finding(
                "privileges", Level.FAIL, f"{user} may not read and write {', '.join(lacking)}",
                f"let the owner of the schema run `tickstock db grant writer {user}`",
            )  # fmt: skip
        else:
            yield Finding("privileges", Level.OK, f"{user} may write all that ingest writes")

    def _policies(self) -> Iterator[Finding]:
        engine: str = fetch_value(self._db, "select tickstock_engine()")
        after: timedelta | None = fetch_value(
            self._db, "select columnstore_after from storage_policy"
        )
        yield _columnstore(engine, after)

    def _ingest(self) -> Iterator[Finding]:
        alive = fetch_value(self._db, "select count(*) from feed_live where alive")
        self._live = alive > 0 or fetch_value(self._db, RUNNING) > 0
        clock: datetime | None = fetch_value(self._db, "select feed_clock()")
        told = f"the feed's clock is at {clock:%Y-%m-%d %H:%M} UTC" if clock else "no bar yet"
        if alive:
            yield Finding("ingest", Level.OK, f"runs, and is subscribed; {told}")
        elif self._live:
            yield Finding(
                "ingest", Level.WARN, f"runs, but is not subscribed now; {told}", "see its log"
            )
        else:
            yield Finding("ingest", Level.WARN, f"none runs; {told}", "start `tickstock ingest`")

    def _owed(self) -> Iterator[Finding]:
        row = self._db.execute("select gaps, owed_minutes from feed_status").fetchone()
        gaps, minutes = row or (0, 0)
        if gaps:
            yield Finding(
                "owed", Level.WARN,
                f"missed live and not filled yet: {counted(minutes, 'minute')} in {counted(gaps, 'gap')}",
                "ingest fills them if it has REST; `tickstock gaps` lists, `tickstock backfill` fills them",
            )  # fmt: skip
        else:
            yield Finding("owed", Level.OK, "nothing")

    def _rest(self) -> Iterator[Finding]:
        url, key = self.settings.rest_url, self.settings.api_key
        if not url:
            yield Finding(
                "REST", Level.WARN, "there is no REST API: gaps stay owed", "set TICKSTOCK_REST_URL"
            )
            return
        if not key or not _is_key(key):
            return
        before = datetime.now(UTC)
        try:
            told = rest.market_now(url, key)
        except RestNotInPlanError as error:
            yield Finding(
                "REST", Level.WARN, f"accepts the key, but does not tell its time: {error.message}",
                "gaps are filled all the same, if the plan includes bars",
            )  # fmt: skip
            return
        yield Finding("REST", Level.OK, f"accepts the key; the market is {told.market}")
        after = datetime.now(UTC)
        yield _clock(told.server_time, before, after, replay=not rest.runs_by_the_wall(url))

    def _feed(self) -> Iterator[Finding]:
        url, key = self.settings.feed_url, self.settings.api_key
        if self._live is None:
            yield Finding(
                "feed", Level.WARN, "not tried: it is not known whether an ingest is connected with this key",
                "first make the database check pass",
            )  # fmt: skip
        elif self._live:
            yield Finding(
                "feed", Level.OK, "not tried: ingest runs, and a second connection with its key could "
                "cut it off",
            )  # fmt: skip
        elif key and _is_key(key):
            yield try_feed(url, key)

    def _redis(self) -> Iterator[Finding]:
        url = self.settings.redis_url
        if url is None:
            yield Finding("Redis", Level.OK, "none is set: events go by NOTIFY alone")
            return
        with closing(redis.require(url)):
            yield Finding("Redis", Level.OK, "answers")

    def _spill(self) -> Iterator[Finding]:
        there = folder = data_dir() / "spill"
        try:
            there = _existing(folder)
            # What is made is what ingest would make; where it is not there yet, its parent tells.
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"\0")
        except OSError as error:
            yield Finding(
                "spill folder", Level.FAIL, f"{there} can't be written: {error.strerror}",
                "let this user write there, or set TICKSTOCK_DATA_DIR",
            )  # fmt: skip
            return
        yield Finding("spill folder", Level.OK, f"{folder} can be written by user {os.geteuid()}")
        free = shutil.disk_usage(there).free
        level = Level.OK if free >= ENOUGH_DISK else Level.WARN
        level = Level.FAIL if free < TOO_LITTLE_DISK else level
        yield Finding(
            "disk space", level, f"{free / 2**30:,.1f} GiB are free there",
            "" if level is Level.OK else "make room, or set TICKSTOCK_DATA_DIR to another disk",
        )  # fmt: skip

    @property
    def _db(self) -> Connection[TupleRow]:
        assert self._conn is not None
        return self._conn


_MIGRATE = "run `tickstock db migrate`, as the owner of the database"

_CHECK_URL = "check TICKSTOCK_FEED_URL and the network"

_SAID = {
    StatusKind.AUTH_FAILED: (
        "it refuses the API key",
        "set MASSIVE_API_KEY to a valid key of this feed",
    ),
    StatusKind.NO_ACCESS: (
        "it knows the key, but its plan has no access to this feed",
        "upgrade the plan, or set TICKSTOCK_FEED_URL to a feed that it includes",
    ),
    StatusKind.NOT_AUTHORIZED: (
        "the plan of the key does not include it",
        "upgrade the plan, or set TICKSTOCK_FEED_URL to a feed that it includes",
    ),
    StatusKind.MAX_CONNECTIONS: (
        "it says that the key has too many connections",
        "end the other client that uses this key",
    ),
}


def try_feed(url: str, key: str) -> Finding:
    """Connect to the feed, authenticate, and hang up. Raises FeedUnreachableError for a bad URL."""
    check_url(url)
    name = redact_url(url)
    try:
        socket = open_socket(url, ANSWER_TIMEOUT, threading.Event())
        assert socket is not None  # nobody sets that event
        try:
            kind = _answer(socket, key)
        finally:
            socket.send_close()
            socket.shutdown()
    except CONNECTION_ERRORS as error:
        return Finding("feed", Level.FAIL, f"{name}: {describe(error)}", _CHECK_URL)
    if kind is StatusKind.AUTH_SUCCESS:
        return Finding("feed", Level.OK, f"{name} accepts the key")
    found, remedy = _SAID.get(kind, ("it hung up, or does not answer the key", _CHECK_URL))
    return Finding("feed", Level.FAIL, f"{name}: {found}", remedy)


def _answer(socket: FeedSocket, key: str) -> StatusKind:
    """What the feed says of the key; OTHER where it says nothing of use."""
    socket.settimeout(ANSWER_TIMEOUT)
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while time.monotonic() < deadline:
        opcode, data = socket.recv_data()
        if opcode == _CLOSE:
            return _closing(data)
        statuses = parse_frame(data, datetime.now(UTC)).statuses
        for kind in map(protocol.classify, statuses):
            if kind is StatusKind.CONNECTED:
                socket.send(protocol.auth_message(key))
            elif kind is StatusKind.AUTH_SUCCESS or kind in _SAID:
                return kind
    return StatusKind.OTHER


_CLOSE = 8
"""WebSocket's opcode."""


def _closing(data: bytes) -> StatusKind:
    crowded = b"maximum number of" in data.lower()
    return StatusKind.MAX_CONNECTIONS if crowded else StatusKind.OTHER


def _columnstore(engine: str, after: timedelta | None) -> Finding:
    """When bars move there, where there is one."""
    if engine != "community":
        return Finding("policies", Level.OK, f"engine {engine} has no columnstore: bars stay rows")
    if after is None:
        return Finding("policies", Level.OK, "bars never move into the columnstore")
    told = f"bars move into the columnstore after {counted(after.days, 'day')}"
    if after < SHORTEST_COLUMNSTORE_AFTER:
        return Finding(
            "policies", Level.WARN, f"{told}, while late ones still come: correct, but slow",
            "update storage_policy set columnstore_after = '14 days'",
        )  # fmt: skip
    return Finding("policies", Level.OK, told)


def _database_clock(server: datetime, before: datetime, after: datetime) -> Finding:
    """The clock of the database's machine against this one's, read before and after it."""
    off = max(server - after, before - server, timedelta())
    if off > CLOCK_TOLERANCE:
        way = "ahead of" if server > after else "behind"
        return Finding(
            "database clock", Level.WARN,
            f"the database's clock is {off.total_seconds():.0f} s {way} this machine's",
            "let NTP set both; what is owed, late, or from a day ahead is told by the database's",
        )  # fmt: skip
    return Finding("database clock", Level.OK, "agrees with this machine's")


def _clock(told: str | None, before: datetime, after: datetime, *, replay: bool) -> Finding:
    """This machine's clock against the server's, which tells whole seconds, in ISO 8601.

    `replay`: whether the server may play a market of the past.
    """
    try:
        server = datetime.fromisoformat(told or "").astimezone(UTC)
    except ValueError:
        return Finding("clock", Level.OK, "not compared: the feed's server does not tell its time")
    if replay and after - server > REPLAY:
        return Finding(
            "clock", Level.OK, f"not compared: the feed's server is at {server:%Y-%m-%d %H:%M} UTC"
        )
    early, late = server - after, before - server - timedelta(seconds=1)
    off = max(early, late, timedelta())
    if off > CLOCK_TOLERANCE:
        return Finding(
            "clock", Level.WARN,
            f"this machine's clock is {off.total_seconds():.0f} s {'behind' if off == early else 'ahead'}"
            " of the feed's server",
            "let NTP set it; lags and logs depend on it, and a database here refuses bars a day ahead of it",
        )  # fmt: skip
    return Finding("clock", Level.OK, "agrees with the feed's server")


def _is_key(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())
