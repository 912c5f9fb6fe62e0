"""Keys and passwords are in the environment and nowhere else.

Logs and errors: tests/test_cli.py, tests/test_logs.py.
"""

import urllib.request
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tests.e2e.hardship import market
from tests.e2e.program import KEY, await_connected, eventually, running, stop_all, until
from tests.test_docs import every_command
from tickstock.cli import main
from tickstock.simulator import Simulator

PASSWORD = "s3cr3t-0f-N0-0ne"  # noqa: S105 - it opens nothing
ON_ONE_ENGINE = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


@ON_ONE_ENGINE
def test_neither_processes_nor_the_database_nor_metrics_show_a_secret(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_DATABASE_URL": make_conninfo(url, password=PASSWORD),
        "TICKSTOCK_REDIS_URL": f"redis://me:{PASSWORD}@127.0.0.1:1/0",
        "TICKSTOCK_LOG_FORMAT": "json",
    }
    without_redis = {k: v for k, v in settings.items() if "REDIS" not in k}
    with (
        Simulator(market(5, 300), keys=[KEY], speed=600) as simulator,
        running("scan", **settings) as scan,
        running("listen", "--consumer", "risk", "--json", **without_redis) as listen,
        running(
            "ingest", "--symbols", "*", "--metrics-port", "0", **settings,
            TICKSTOCK_FEED_URL=f"{simulator.url}?apiKey={KEY}",
        ) as ingest,
    ):  # fmt: skip
        await_connected(url, "listen")
        until(url, "select count(*) > 0 from ohlcv_1min")
        eventually(lambda: listen.output, "an event is told")
        shown = [
            Path(f"/proc/{program.process.pid}/cmdline").read_text()
            for program in (scan, listen, ingest)
        ]
        assert all("tickstock" in line for line in shown)
        shown += [str(row) for row in conn.execute("select * from pg_stat_activity")]
        shown += [str(row) for row in conn.execute("select * from feed_stretches")]
        assert simulator.url in shown[-1]
        ingest.await_error("metrics")
        address = next(
            word.strip('",.') for line in ingest.errors if "metrics" in line
            for word in line.split() if word.startswith("http://")
        )  # fmt: skip
        with urllib.request.urlopen(address) as answer:  # noqa: S310 - our own
            shown.append(answer.read().decode())
        assert "tickstock_" in shown[-1]
        assert stop_all(scan, listen, ingest) == [0, 0, 0]
    shown += [*scan.errors, *listen.errors, *listen.output, *ingest.errors]
    assert not [line for line in shown if PASSWORD in line or KEY in line]


@pytest.mark.parametrize("command", list(every_command()), ids=lambda command: str(command.name))
def test_help_shows_no_secret_as_a_default(command: click.Command) -> None:
    secrets = {
        option.envvar if isinstance(option.envvar, str) else option.envvar[0]: (
            f"postgresql://me:{PASSWORD}@host/db"
        )
        for option in command.params
        if isinstance(option, click.Option) and option.envvar
    }
    shown = CliRunner().invoke(command, ["--help"], env=secrets, **main.context_settings)
    assert shown.exit_code == 0
    assert PASSWORD not in shown.output
    assert main.name
