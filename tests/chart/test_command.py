"""`tickstock chart`, as one runs it."""

import json
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.test_any_candle import WRITE
from tests.e2e.program import run
from tests.scan.making import OPENING, event, record
from tests.scan.support import on_one_engine
from tickstock.chart import series as serieses
from tickstock.chart.series import MOST, Series, read_series
from tickstock.cli import main
from tickstock.db.read import Ask
from tickstock.errors import TickstockError

MINUTE = timedelta(minutes=1)


def market(conn: Connection[TupleRow]) -> None:
    """A trading day of minutes, and one after it of which ten are there. Three events, one retracted."""
    conn.execute(WRITE, ("AAPL", OPENING, 390, 1, 1000, 7, True))
    conn.execute(WRITE, ("AAPL", OPENING + timedelta(days=1), 10, 1, 9000, 7, True))
    found = [event("AAPL", ts=OPENING + n * 5 * MINUTE) for n in (1, 2, 3)]
    record(conn, found, timeframe="5min")
    conn.execute("update events set retracted_at = now() where ts = %s", (OPENING + 15 * MINUTE,))
    record(conn, [event("AAPL", pattern="Hammer", direction="long")], asked=["Hammer"])


def data(page: Path) -> dict[str, list[dict[str, list[float]]]]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found
    told: dict[str, list[dict[str, list[float]]]] = json.loads(found[1])
    return told


def test_a_series_is_what_the_relations_hold(conn: Connection[TupleRow]) -> None:
    market(conn)
    made = read_series(conn, Ask("AAPL", "5min"))
    rows = conn.execute(
        "select ts, open::float8, close::float8, volume::float8 from ohlcv_5min"
        " where symbol = 'AAPL' order by ts"
    ).fetchall()
    assert [(each.ts, each.open, each.close, each.volume) for each in made.candles] == rows
    assert str(made.candles[0].ts.tzinfo) == "America/New_York"
    assert [(each.place, each.pattern, each.strength) for each in made.events] == [
        (1, "Doji", 0.5),
        (2, "Doji", 0.5),
    ]
    # By any other name; but hours from the opening are not those that were searched.
    assert read_series(conn, Ask("AAPL", "5 minutes")).events == made.events
    assert read_series(conn, Ask("AAPL", "5min", sessions="regular")).events == made.events
    for pattern, strength in (("Weak", 0.25), ("Strong", 0.75)):
        record(conn, [event("AAPL", pattern=pattern, strength=strength)], asked=[pattern])
    of_a_candle = [e.pattern for e in read_series(conn, Ask("AAPL", "1min")).events]
    assert of_a_candle == ["Strong", "Hammer", "Weak"], "the strongest first"
    assert read_series(conn, Ask("AAPL", "10 minutes")).events == []
    assert read_series(conn, Ask("AAPL", "5min"), patterns=["Hammer"]).events == []
    assert read_series(conn, Ask("AAPL", "5min"), patterns=["Doji"]).events == made.events
    assert len(read_series(conn, Ask("AAPL", "1min", last=7)).candles) == 7


@on_one_engine
def test_a_page_a_picture_and_the_terminal(
    conn: Connection[TupleRow], url: str, tmp_path: Path
) -> None:
    market(conn)
    page, picture = tmp_path / "a.html", tmp_path / "a.PNG"
    for file in (page, picture):
        done = run("chart", "AAPL", "5min", "--output", str(file), TICKSTOCK_DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{file}: 80 candles, 2 events, ")
    assert len(data(page)["data"][0]["x"]) == 80
    assert picture.read_bytes().startswith(b"\x89PNG")

    said = run("chart", "AAPL", "5min", TICKSTOCK_DATABASE_URL=url, COLUMNS="200").stdout
    assert said.startswith("AAPL 5min: 2025-11-24 ")
    assert "New York time" in said.replace("\n", " ")
    assert "\x1b" not in said, "no colours into a pipe"
    assert max(map(len, said.splitlines())) <= 100
    assert len(re.findall("[█│]", said)) > 40


@on_one_engine
def test_signs_and_volume_stand_below_their_candles(conn: Connection[TupleRow], url: str) -> None:
    market(conn)
    options = ("--to", "2025-11-24T10:00", "--last", "6")
    said = run("chart", "AAPL", "5min", *options, TICKSTOCK_DATABASE_URL=url).stdout
    lines = said.splitlines()
    body = sorted({n for line in lines for n, sign in enumerate(line) if sign == "█"})
    [marks] = [line for line in lines if "◆" in line and "Doji" not in line]
    places = [n for n, sign in enumerate(marks) if sign == "◆"]
    first = next(line.index("┌") for line in lines if "┌" in line) + 1
    assert [(n - first) / 2 for n in places] == [1, 2]
    assert {(n - first) % 2 for n in body} == {0}, "candles and volume"
    assert re.search(r"^◆ 2025-11-24 09:35  Doji, neutral, strength 0\.50, at 10\.50$", said, re.M)
    assert (
        "◆"
        not in run(
            "chart", "AAPL", "5min", *options, "--no-events", TICKSTOCK_DATABASE_URL=url
        ).stdout
    )


@on_one_engine
@pytest.mark.parametrize(
    ("options", "first", "last", "number"),
    [
        (["--last", "3"], "2025-11-25T09:37", "2025-11-25T09:39", 3),
        (["--from", "2025-11-25"], "2025-11-25T09:30", "2025-11-25T09:39", 10),
        (["--to", "2025-11-24"], "2025-11-24T09:30", "2025-11-24T15:59", 390),
        (["--to", "2025-11-24T10:00"], "2025-11-24T09:30", "2025-11-24T09:59", 30),
        (["--from", "2025-11-24 10:00", "--to", "2025-11-24T10:10"],
         "2025-11-24T10:00", "2025-11-24T10:09", 10),
        (["--from", "2025-11-24", "--last", "2"], "2025-11-25T09:38", "2025-11-25T09:39", 2),
        ([], "2025-11-24T12:50", "2025-11-25T09:39", 200),
    ],
    ids=str,
)  # fmt: skip
def test_ranges_are_new_yorks(
    conn: Connection[TupleRow],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    first: str,
    last: str,
    number: int,
) -> None:
    market(conn)
    seen: list[Series] = []
    monkeypatch.setattr("tickstock.cli.chart._draw", seen.append)
    done = CliRunner().invoke(main, ["chart", "AAPL", "1min", *options, "--database-url", url])
    assert done.exit_code == 0, done.output
    [made] = seen
    assert len(made.candles) == number
    assert f"{made.candles[0].ts:%Y-%m-%dT%H:%M}" == first
    assert f"{made.candles[-1].ts:%Y-%m-%dT%H:%M}" == last


@on_one_engine
@pytest.mark.parametrize(
    ("code", "arguments", "told"),
    [
        (1, ("AAPLE", "5min"), "no candles of 'AAPLE': did you mean AAPL?"),
        (1, ("AAPL", "5min", "--from", "2030-01-02"),
         "AAPL has no 5min candles in this range: its bars are of 2025-11-24 to 2025-11-25"),
        (1, ("AAPL", "5min", "--pattern", "Dojji"), "no pattern 'Dojji': did you mean Doji"),
        (1, ("AAPL", "5min", "--output", "/no/such/folder/a.html"),
         "can't write /no/such/folder/a.html: No such file or directory"),
        (1, ("AAPL", "5min", "--output", "/no/such/folder/a.png"),
         "can't write /no/such/folder/a.png: No such file or directory"),
        (2, ("AAPL", "7min"), "there are no candles of the width '7min'. Possible are the names"),
        (2, ("AAPL", "5min", "--output", "a.jpg"), "a.jpg: the name has to end with .html or .png"),
        (2, ("AAPL", "5min", "--from", "soon"), "'soon' is neither a day such as 2025-11-24"),
        (2, ("AAPL", "5min", "--from", "2025-11-25", "--to", "2025-11-24"), "--to is before --from"),
        (2, ("AAPL", "5min", "--no-events", "--pattern", "Doji"), "either --pattern or --no-events"),
        (2, ("AAPL", "5min", "--last", "0"), "0 is not in the range"),
        (2, ("AAPL",), "Missing argument 'TIMEFRAME'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_can_not_be_drawn_is_told_in_a_line(
    conn: Connection[TupleRow], url: str, code: int, arguments: tuple[str, ...], told: str
) -> None:
    market(conn)
    done = run("chart", *arguments, TICKSTOCK_DATABASE_URL=url)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert told in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@on_one_engine
def test_too_many_candles_are_refused(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    market(conn)
    monkeypatch.setattr(serieses, "MOST", 399)
    with pytest.raises(TickstockError, match="more than 399 candles: choose a longer timeframe"):
        read_series(conn, Ask("AAPL", "1min"))
    monkeypatch.setattr(serieses, "MOST", 400)
    assert len(read_series(conn, Ask("AAPL", "1min")).candles) == 400
    assert MOST >= 5_000


@on_one_engine
@pytest.mark.parametrize(("ending", "library"), [("html", "plotly"), ("png", "matplotlib")])
def test_without_the_extra_it_is_named(
    conn: Connection[TupleRow],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ending: str,
    library: str,
) -> None:
    market(conn)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    file = tmp_path / f"a.{ending}"
    done = CliRunner().invoke(
        main, ["chart", "AAPL", "5min", "--output", str(file), "--database-url", url]
    )
    assert done.exit_code == 1
    kind = ending.upper()
    assert (
        done.stderr == f"Error: a chart in {kind} needs {library}: pip install 'tickstock[chart]'\n"
    )
    assert not file.exists()


@on_one_engine
def test_names_do_not_command_the_terminal(conn: Connection[TupleRow], url: str) -> None:
    market(conn)
    conn.execute("update events set pattern = e'\\x1b[2JDoji' where pattern = 'Doji'")
    options = ("--to", "2025-11-24T10:00")
    said = run("chart", "AAPL", "5min", *options, TICKSTOCK_DATABASE_URL=url).stdout
    assert "\x1b" not in said
    assert "?[2JDoji" in said
