"""Logs: lines for people or JSON for machines, and no secret in either."""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.conninfo import make_conninfo

from tests.feed.scripted_server import Peer, ScriptedServer
from tickstock import logs
from tickstock.simulator import RandomMarket, Simulator

from .e2e.program import run

on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
both = pytest.mark.parametrize("log_format", logs.FORMATS)

PASSWORD = "pa55/w0rd"  # noqa: S105 - it opens nothing
ODD_KEYS = [
    "wr0ng-k3y", 'wr0ng"k3y', "wr0ng%20k3y", "wr0ng k3y\n", "wröngk3y", "%s-wr0ngk3y",
]  # fmt: skip


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was when the test is over; and nothing hidden any more."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    hidden = set(logs._secrets)
    for handler in before:  # pytest's own: set_up would close them
        root.removeHandler(handler)
    yield root
    root.handlers[:] = before
    root.setLevel(level)
    logs._secrets.clear()
    logs._secrets.update(hidden)


@on_one_engine
@both
@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_that_is_refused_is_not_told(url: str, key: str, log_format: str) -> None:
    """Not even when the feed says it back."""

    def refuse(peer: Peer) -> None:
        peer.status(("connected", "Connected Successfully"))
        peer.status(("auth_failed", f"there is no key {peer.expect('auth')} here"))

    with ScriptedServer(refuse) as feed, Simulator(RandomMarket(1), keys=["other"]) as simulator:
        done = run(
            "ingest", "--symbols", "AAPL", "--verbose", "--log-format", log_format,
            "--feed-url", feed.url, "--rest-url", simulator.rest_url,
            MASSIVE_API_KEY=key, TICKSTOCK_DATABASE_URL=make_conninfo(url, password=PASSWORD),
        )  # fmt: skip
    assert done.returncode in (1, 5), done.stderr
    said = done.stdout + done.stderr
    assert key.strip() not in said
    assert PASSWORD not in said
    assert ("authentic" in said) == (done.returncode == 5)
    if log_format == "json":
        last = [json.loads(line) for line in done.stderr.splitlines()][-1]
        assert (last["level"], last["logger"]) == ("ERROR", "tickstock")
    else:
        assert done.stderr.splitlines()[-1].startswith("Error: ")


@both
@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("postgresql://me:pa55w0rd@host/db", "pa55w0rd"),
        ("postgresql://me:pa55%2Fw0rd@host/db", "pa55/w0rd"),
        ("postgresql://me:pa55@w0rd@host/db", "pa55@w0rd"),
        ("postgresql://host/db?user=me&password=pa55w0rd&connect_timeout=1", "pa55w0rd"),
        ("host=h password=pa55w0rd user=me", "pa55w0rd"),
        ("host=h password = 'pa55 w0rd' user=me", "pa55 w0rd"),
        ("redis://:pa55w0rd@host:1/0", "pa55w0rd"),
        ("wss://host/stocks?apiKey=pa55w0rd", "pa55w0rd"),
    ],
)
def test_what_a_library_quotes_is_blotted_out(
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    address: str,
    secret: str,
    log_format: str,
) -> None:
    for password in logs.passwords_in(address):
        logs.hide(password)
    logs.set_up(log_format)
    try:
        raise ValueError(f"what is {secret}?")
    except ValueError:
        logging.getLogger("library").exception("no way to %s", f"use {secret}")
    told = capsys.readouterr().err
    assert secret not in told
    assert "no way to use ***" in told
    assert "ValueError: what is ***?" in told


def test_a_line_of_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json")
    root.setLevel(logging.INFO)
    logger = logging.getLogger("tickstock.some.place")
    logger.debug("not this")
    logger.info("%d bars\nof %s", 3, "Zürich")
    try:
        raise OSError("gone")
    except OSError:
        logger.exception("trouble")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    time = datetime.fromisoformat(first.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert first == {
        "level": "INFO",
        "logger": "tickstock.some.place",
        "message": "3 bars\nof Zürich",
    }
    assert second["exception"].startswith("Traceback")
    assert second["exception"].endswith("OSError: gone")


def test_a_name_that_is_no_text_is_told_all_the_same() -> None:
    """A file's name may be any bytes, and an error names the file."""
    name = os.fsdecode(b"watch\xfflist.txt")
    told = run("ingest", "--symbols-file", name, "--log-format", "json", MASSIVE_API_KEY="any-key")
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert r"--symbols-file watch\udcfflist.txt can't be read" in json.loads(line)["message"]


def test_the_format_may_come_from_the_environment_and_errors_follow_it() -> None:
    told = run("ingest", TICKSTOCK_LOG_FORMAT="json", MASSIVE_API_KEY="any-key")
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert "which symbols?" in json.loads(line)["message"]
    assert run("ingest", "--log-format", "xml").returncode == 2
