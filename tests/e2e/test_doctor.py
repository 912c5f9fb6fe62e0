"""`tickstock doctor` beside what is sound, and beside each thing that is not."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tests.feed.http_server import HttpServer, Reply
from tests.feed.scripted_server import Peer, ScriptedServer
from tickstock.db.roles import apply, plan
from tickstock.doctor import (
    Doctor,
    Level,
    Settings,
    _clock,
    _columnstore,
    _database_clock,
    try_feed,
)
from tickstock.embedded.redis import embedded_redis
from tickstock.simulator import RandomMarket, Simulator

from .program import KEY, await_connected, run, running

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

Told = dict[str, dict[str, str]]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(RandomMarket(3), keys=[KEY]) as simulator:
        yield simulator


def ask(simulator: Simulator, url: str, code: int, **settings: str) -> Told:
    """The findings of a doctor who ends with this code, by check."""
    given = {
        "TICKSTOCK_FEED_URL": simulator.url,
        "TICKSTOCK_REST_URL": simulator.rest_url,
        "TICKSTOCK_DATABASE_URL": url,
        "MASSIVE_API_KEY": KEY,
        **settings,
    }
    done = run("doctor", "--json", "--verbose", **given)
    assert done.returncode == code, done.stdout + done.stderr
    for secret in (given["MASSIVE_API_KEY"], "s3cr3t"):
        assert not secret or secret not in done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] == (code == 0)
    found: Told = {finding["check"]: finding for finding in told["checks"]}
    failed = [finding for finding in found.values() if finding["level"] == "FAIL"]
    assert bool(failed) == (code == 1)
    return found


def test_all_is_well(simulator: Simulator, url: str) -> None:
    with embedded_redis() as redis_url:
        told = ask(simulator, url, 0, TICKSTOCK_REDIS_URL=redis_url)
        text = run(
            "doctor", "--feed-url", simulator.url, "--rest-url", simulator.rest_url,
            "--database-url", url, "--redis-url", redis_url, MASSIVE_API_KEY=KEY,
        )  # fmt: skip
    levels = {name: finding["level"] for name, finding in told.items()}
    del levels["disk space"]  # the machine's
    assert levels == dict.fromkeys(levels, "ok") | {"ingest": "warn"}
    assert len(levels) == 15
    assert told["clock"]["found"].startswith("not compared: ")
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in text.stdout.splitlines()] == [*told]
    assert "warn  ingest: none runs; no bar yet; start `tickstock ingest`\n" in text.stdout


def test_a_plan_without_the_market_s_state_is_no_failure(simulator: Simulator, url: str) -> None:
    simulator.faults.order("rest_403")
    told = ask(simulator, url, 0)
    assert told["REST"]["level"] == "warn"
    assert "accepts the key, but does not tell its time" in told["REST"]["found"]


def test_a_settings_file_is_looked_at_whole(simulator: Simulator, url: str, tmp_path: Path) -> None:
    """Also the tables of commands that nobody runs now."""
    file = tmp_path / "settings.toml"
    file.write_text("[ingest]\nsymbols = 'AAPL'\n[db.status]\njsn = true")
    told = ask(simulator, url, 1, TICKSTOCK_SETTINGS=str(file))
    assert told["settings file"]["level"] == "FAIL"
    said = f"settings file {file}: jsn in [db.status] is not a setting: did you mean json?"
    assert told["settings file"]["found"] == said
    file.write_text("[ingest]\nsymbols = 'AAPL'\n[db.status]\njson = true")
    found = {"check": "settings file", "level": "ok", "found": str(file), "remedy": ""}
    assert ask(simulator, url, 0, TICKSTOCK_SETTINGS=str(file))["settings file"] == found


@pytest.mark.parametrize("key", ["wr0ng-k3y", "wr0ng k3y", "wröngk3y", ""])
def test_a_key_that_is_none(simulator: Simulator, url: str, key: str) -> None:
    told = ask(simulator, url, 1, MASSIVE_API_KEY=key)
    if key == "wr0ng-k3y":
        assert told["feed"]["level"] == told["REST"]["level"] == "FAIL"
        assert "set MASSIVE_API_KEY to a valid key" in told["feed"]["remedy"]
        assert "set MASSIVE_API_KEY to a valid key" in told["REST"]["found"]
    else:
        assert told["key"]["level"] == "FAIL"
        assert not told.keys() & {"feed", "REST", "clock"}


def test_a_running_ingest_is_left_alone(url: str) -> None:
    with Simulator(RandomMarket(3), keys=[KEY], max_connections=1) as simulator:
        settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
        arguments = ("--symbols", "*", "--feed-url", simulator.url, "--verbose")
        with running("ingest", *arguments, **settings) as ingest:
            await_connected(url, "ingest")
            told = ask(simulator, url, 0)
            assert told["ingest"]["found"].startswith("runs")
            assert told["feed"]["found"].startswith("not tried: ingest runs")
            assert ingest.stop() == 0
            assert "waiting" not in re.sub("frames? waiting", "", "".join(ingest.errors))


def test_nothing_is_there(simulator: Simulator, empty_url: str, url: str) -> None:
    none = "127.0.0.1:1"
    told = ask(
        simulator, f"postgresql://me:s3cr3t@{none}/market", 1,
        TICKSTOCK_REST_URL=f"http://{none}", TICKSTOCK_REDIS_URL=f"redis://me:s3cr3t@{none}/0",
        TICKSTOCK_DATA_DIR="/dev/null/data",
    )  # fmt: skip
    failed = {name for name, finding in told.items() if finding["level"] == "FAIL"}
    assert failed == {"database", "REST", "Redis", "spill folder"}
    assert told["feed"]["found"].startswith("not tried: ")

    told = ask(simulator, empty_url, 1)
    assert "run `tickstock db migrate`" in told["schema"]["found"]
    assert "privileges" not in told

    told = ask(simulator, url, 1, TICKSTOCK_FEED_URL=f"ws://{none}/stocks?apiKey=s3cr3t")
    assert told["feed"]["found"] == f"ws://{none}/stocks?***: connection refused"
    told = ask(simulator, url, 1, TICKSTOCK_FEED_URL="https://me:s3cr3t@host/stocks")
    assert "is not the address of a feed" in told["feed url"]["found"]


def test_a_spill_folder_that_can_not_even_be_looked_at(simulator: Simulator, url: str) -> None:
    """Nor can one in another user's home; but to root, who may run these tests, nothing is closed."""
    folder = f"/tmp/{300 * 'x'}"  # noqa: S108 - no file system has such a name
    told = ask(simulator, url, 1, TICKSTOCK_DATA_DIR=folder)["spill folder"]
    assert told["found"] == f"{folder}/spill can't be written: File name too long"
    assert "set TICKSTOCK_DATA_DIR" in told["remedy"]


def test_what_the_database_lacks(
    simulator: Simulator, url: str, conn: Connection[TupleRow]
) -> None:
    conn.execute(
        "insert into feed_stretches (feed, channel, starts, latest, bars, closed_at, reason)"
        " values ('ws://feed', 'AM', '2025-11-24 14:30+00', '2025-11-24 14:40+00', 9, now(), 'cut')"
    )
    role = f"guest_{conn.info.dbname}"
    conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        apply(conn, plan(conn, "reader", role, None))
        told = ask(simulator, make_conninfo(url, user=role), 1)
    finally:
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
    assert told["privileges"]["level"] == "FAIL"
    assert "public.ohlcv_1min, public.patterns" in told["privileges"]["found"]
    assert f"tickstock db grant writer {role}" in told["privileges"]["remedy"]
    assert "has no columnstore" in told["policies"]["found"]
    assert told["owed"]["level"] == "warn"
    assert told["owed"]["found"].endswith(" minutes in 1 gap")


def _crowded(peer: Peer) -> None:
    peer.status(("connected", "Connected Successfully"))
    peer.expect("auth")
    peer.status(("max_connections", "Maximum number of websocket connections exceeded."))
    peer.close(1008)


def _crowded_by_close(peer: Peer) -> None:
    peer.status(("connected", "Connected Successfully"))
    peer.expect("auth")
    peer.close(1008, "Maximum number of connections")


def _no_plan(peer: Peer) -> None:
    peer.status(("connected", "Connected Successfully"))
    peer.expect("auth")
    peer.status(("auth_failed", "Your plan doesn't include websocket access."))


def _rude(peer: Peer) -> None:
    peer.status(("connected", "Connected Successfully"))
    peer.hang_up()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (_crowded, "too many connections"),
        (_crowded_by_close, "too many connections"),
        (_no_plan, "its plan has no access"),
        (_rude, "the other side hung up"),
    ],
)
def test_what_the_feed_says(script: object, found: str, engine: object) -> None:
    with ScriptedServer(script) as server:  # type: ignore[arg-type]
        told = try_feed(server.url, KEY)
    assert told.level is Level.FAIL
    assert found in told.found
    assert told.remedy


@pytest.mark.parametrize(
    ("off", "replay", "level", "word"),
    [
        (0, False, Level.OK, "agrees"),
        (-1, False, Level.OK, "agrees"),  # the vendor's whole seconds
        (-5.5, False, Level.OK, "agrees"),
        (30, False, Level.WARN, "30 s behind"),
        (-31, False, Level.WARN, "30 s ahead"),
        # By a time zone, or for want of a battery.
        (5 * 3_600, False, Level.WARN, "18000 s behind"),
        (-3 * 86_400, False, Level.WARN, "259199 s ahead"),
        (-3 * 86_400, True, Level.OK, "not compared"),
        (5 * 3_600, True, Level.WARN, "18000 s behind"),  # no replay is of a time to come
    ],
)
def test_clocks(off: float, replay: bool, level: Level, word: str, engine: object) -> None:
    now = datetime(2026, 1, 5, 15, tzinfo=UTC)
    told = _clock((now + timedelta(seconds=off)).isoformat(), now, now, replay=replay)
    assert (told.level, word in told.found) == (level, True)


@pytest.mark.parametrize(
    ("off", "level", "word"),
    [
        (0, Level.OK, "agrees"),
        (5, Level.OK, "agrees"),
        (-7, Level.OK, "agrees"),  # the answer took two of these
        (30, Level.WARN, "30 s ahead of"),
        (-32, Level.WARN, "30 s behind this"),
        (5 * 3_600, Level.WARN, "18000 s ahead of"),
    ],
)
def test_clocks_of_the_database(off: float, level: Level, word: str, engine: object) -> None:
    after = datetime(2026, 1, 5, 15, tzinfo=UTC)
    told = _database_clock(after + timedelta(seconds=off), after - timedelta(seconds=2), after)
    assert (told.level, word in told.found) == (level, True)


def test_a_clock_that_is_hours_behind(simulator: Simulator, url: str) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=5)).isoformat()
    with HttpServer(Reply(content={"market": "open", "serverTime": ahead})) as server:
        told = ask(simulator, url, 0, TICKSTOCK_REST_URL=server.url)
    assert told["clock"]["level"] == "warn"
    assert "s behind of the feed's server" in told["clock"]["found"]


@pytest.mark.parametrize(
    ("name", "after", "level", "told"),
    [
        ("community", timedelta(days=14), Level.OK, "bars move into the columnstore after 14 days"),
        ("community", timedelta(days=1), Level.WARN, "after 1 day, while late ones still come"),
        ("community", None, Level.OK, "bars never move into the columnstore"),
        ("apache", timedelta(days=1), Level.OK, "engine apache has no columnstore"),
        ("postgres", timedelta(days=14), Level.OK, "engine postgres has no columnstore"),
    ],
)
def test_policies(
    name: str, after: timedelta | None, level: Level, told: str, engine: object
) -> None:
    finding = _columnstore(name, after)
    assert (finding.level, told in finding.found) == (level, True)
    assert bool(finding.remedy) == (level is Level.WARN)


@pytest.mark.parametrize(
    ("name", "level"),
    [("", Level.OK), ("ENOUGH_DISK", Level.WARN), ("TOO_LITTLE_DISK", Level.FAIL)],
)
def test_space_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, level: Level, engine: object
) -> None:
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("tickstock.doctor.ENOUGH_DISK", 0)
    monkeypatch.setattr("tickstock.doctor.TOO_LITTLE_DISK", 0)
    if name:
        monkeypatch.setattr(f"tickstock.doctor.{name}", 2**60)
    found = list(Doctor(Settings("", None, None, None, None))._spill())
    assert [(each.check, each.level, bool(each.remedy)) for each in found] == [
        ("spill folder", Level.OK, False),
        ("disk space", level, level is not Level.OK),
    ]


def test_a_database_that_is_read_only(simulator: Simulator, url: str) -> None:
    told = ask(
        simulator, make_conninfo(url, options="-c default_transaction_read_only=on"), 1
    )["privileges"]  # fmt: skip
    assert (told["level"], "is read-only" in told["found"]) == ("FAIL", True)


def test_a_server_whose_time_is_none(simulator: Simulator, url: str) -> None:
    with HttpServer(Reply(content={"market": "open", "serverTime": 1_764_000_000})) as server:
        told = ask(simulator, url, 0, TICKSTOCK_REST_URL=server.url)
    assert told["clock"]["found"] == "not compared: the feed's server does not tell its time"
