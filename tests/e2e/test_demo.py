"""The demo, as a newcomer sees it."""

import re
from pathlib import Path

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value

from .program import run

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


def test_the_demo_shows_the_pipeline_and_ends_well(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    """Whatever the operator has set for the real thing."""
    others = tmp_path / "tickstock/settings.toml"
    others.parent.mkdir()
    others.write_text("[ingest]\nstore-ticks = true\n[listen]\npattern = ['None']")
    done = run(
        *("demo", "--seconds", "5", "--symbols", "10"),
        TICKSTOCK_DATABASE_URL=url,
        TICKSTOCK_SETTINGS="",
        XDG_CONFIG_HOME=str(tmp_path),
        TICKSTOCK_SYMBOLS_FILE=str(others),
        TICKSTOCK_LISTEN_CONSUMER="mine",
    )
    assert done.returncode == 0, done.stderr
    stored = fetch_value(conn, "select count(*) from ohlcv_1min")
    assert f"every bar sent is stored: {stored:,} of {stored:,}" in done.stdout
    assert "chart AAPL 1min" in done.stdout
    assert re.search(r"^  event \d{4}-\d\d-\d\d \d\d:\d\d  ", done.stdout, re.MULTILINE)
    assert re.search(r"^ *AAPL +5min +\d\d:\d\d ", done.stdout, re.MULTILINE)
    found = conn.execute("select pattern, count(*) from events group by 1 order by 2 desc, 1")
    (pattern, number), *_ = found.fetchall()
    assert re.search(rf"^ *{pattern} +{number:,} *$", done.stdout, re.MULTILINE)

    again = run("demo", "--seconds", "5", TICKSTOCK_DATABASE_URL=url)
    assert again.returncode == 1
    assert "holds bars already" in again.stderr.splitlines()[-1]
