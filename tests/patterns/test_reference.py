"""`tickstock patterns`: which there are, what they are, trying out one's own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import run
from tests.patterns.windows import PATTERNS
from tickstock.patterns import discover
from tickstock.patterns.discovery import BrokenFileError, load
from tickstock.patterns.reference import reference
from tickstock.scan.catalog import Catalog
from tickstock.scan.trial import Market, Remembering
from tickstock.timeframes import TIMEFRAMES

ROOT = Path(__file__).parent.parent.parent
on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

RISING = """
import numpy as np
from tickstock.patterns import Candles, Found, Parameters, pattern


@pattern("Rising", candles=1, timeframes=["5min", "daily"], parameters={"least": 0.0})
def rising(c: Candles, p: Parameters) -> Found:
    \"\"\"The close is above the open.\"\"\"
    where = c.close[-1] > c.open[-1] + p.least
    return Found(where, 1, np.ones(where.shape), {})
"""
FALLING = """\
-- Falling: the close is below the open.
-- candles: 1
-- timeframes: 5min
select symbol, judged, 'short' as direction, 1.0::float8 as strength, '{}'::jsonb as details
from candles where back = 0 and close < open
"""
# An hour of two symbols: each rises in even candles of five minutes and falls in odd ones.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select s, '2025-11-24 14:30+00'::timestamptz + m * interval '1 minute', 10, 12, 8,
  case when m / 5 % 2 = 0 then 11 else 9 end, 100
from unnest(array['AAPL', 'TSLA']) s, generate_series(0, 59) m
"""


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_document_is_current() -> None:
    assert (ROOT / "docs/patterns.md").read_text() == reference(discover()), (
        "tickstock patterns reference > docs/patterns.md"
    )


def test_the_document_names_every_pattern_and_parameter() -> None:
    document = reference(discover())
    for pattern in discover():
        assert re.search(rf"^(## |\| `){pattern.name}\b", document, re.MULTILINE)
        for name, value in pattern.parameters.items():
            assert f"{name} = {value:.10g}" in document


def test_list_and_show_need_no_database() -> None:
    listed = run("patterns", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [each.name for each in discover()]
    assert all(line.split()[2] == "on" for line in listed)
    shown = run("patterns", "show", "nr7").stdout
    assert "days: candles, the judged one included." in shown
    assert re.search(r"^parameter +days = 7$", shown, re.MULTILINE)
    assert re.search(r"^timeframes +daily$", shown, re.MULTILINE)
    assert "Crabel" in shown
    unknown = run("patterns", "show", "NR8")
    assert unknown.returncode == 1
    assert "no pattern is named NR8" in unknown.stderr


def test_a_name_that_is_taken_is_said_and_stops_nothing_else(tmp_path: Path) -> None:
    written(tmp_path, "mine.py", RISING.replace('"Rising"', '"Doji"'))
    written(tmp_path, "rising.py", RISING)
    listed = run("patterns", "list", "--patterns", str(tmp_path))
    assert listed.returncode == 0
    names = {line.split()[0] for line in listed.stdout.splitlines()}
    assert names == {*(each.name for each in discover()), "Rising"}
    assert f"{tmp_path / 'mine.py'}: " in listed.stderr
    assert "has a pattern named Doji already: rename this one" in listed.stderr


@on_one_engine
def test_list_and_show_tell_the_table_s_settings(url: str, conn: Connection[TupleRow]) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url}
    assert '"enabled":true' in run("patterns", "list", "--json", **settings).stdout
    Catalog(list(PATTERNS.values())).tell(conn)
    conn.execute(
        "update patterns set enabled = false, timeframes = '{5min}', parameters = '{\"max_body\": 0.05}'"
        " where pattern = 'Doji'"
    )
    listed = run("patterns", "list", "--json", **settings).stdout.splitlines()
    told = {each["pattern"]: each for each in map(json.loads, listed)}
    assert told["Doji"]["enabled"] is False
    assert told["Doji"]["timeframes"] == ["5min"]
    assert told["Doji"]["parameters"] == {"max_body": 0.05, "min_range": 0.01}
    assert told["Hammer"]["enabled"] is True
    assert told["Hammer"]["timeframes"] == list(TIMEFRAMES)
    shown = run("patterns", "show", "Doji", **settings).stdout
    assert re.search(r"^enabled +no$", shown, re.MULTILINE)
    assert re.search(r"^timeframes +5min \(default: all\)$", shown, re.MULTILINE)
    assert re.search(r"^parameter +max_body = 0\.05, default 0\.1$", shown, re.MULTILINE)


@on_one_engine
def test_list_and_show_tell_which_settings_are_not_usable(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url}
    Catalog(list(PATTERNS.values())).tell(conn)
    conn.execute(
        "update patterns set parameters = '{\"penetration\": -5}' where pattern = 'CDLMORNINGSTAR'"
    )
    # As an older version let it through.
    conn.execute("alter table patterns disable trigger before_setting")
    conn.execute(
        "update patterns set parameters = '{\"max_body\": \"big\"}' where pattern = 'Doji'"
    )
    listed = run("patterns", "list", **settings).stdout
    assert listed.count("not usable: ") == 2
    assert "not usable: setting of CDLMORNINGSTAR on all timeframes: TA-Lib refuses" in listed
    shown = run("patterns", "show", "Doji", **settings).stdout
    assert "not usable  setting of Doji on all timeframes: pattern Doji: max_body is 'big'" in shown
    assert "max_body = 'big', default 0.1" in shown
    told = json.loads(run("patterns", "show", "--json", "Hammer", **settings).stdout)
    assert told["problems"] == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.py", "x = 1\ndef broken(:", "a.py, line 2: SyntaxError: "),
        ("a.py", "x = 1\n\nimport no_such_module_anywhere", "a.py, line 3: ModuleNotFoundError: "),
        (
            "a.py",
            RISING.replace("5min", "7min"),
            "a.py, line 6: ValueError: pattern Rising: no timeframe 7min",
        ),
        ("a.py", "x = 1", "a.py: it declares no pattern"),
        ("a.py", "from tickstock.patterns.doji import doji", "a.py: it declares no pattern"),
        ("a.sql", FALLING.replace("5min", "7min"), "a.sql, line 3: pattern Falling: no timeframe 7min"),
        ("a.py", "import sys\nsys.exit(2)", "a.py, line 2: SystemExit: 2"),
        (
            "a.py",
            RISING.replace('"Rising"', '"Doji"'),
            "a.py: there is a pattern Doji already: rename this one",
        ),
        (
            "a.py",
            RISING.replace("np.ones(where.shape)", "exit(2)"),
            "a.py, line 10: Rising fails on 5min candles: RuntimeError: it called sys.exit(2)",
        ),
        ("a.txt", "x = 1", "a.txt: a pattern is in a file *.py or *.sql"),
        (
            "a.py",
            RISING.replace("np.ones", "np.oens"),
            "a.py, line 10: Rising fails on 5min candles: AttributeError: ",
        ),
        (
            "a.py",
            RISING.replace("np.ones(where.shape)", "2 * np.ones(where.shape)"),
            "a.py: Rising fails on 5min candles: ValueError: its direction is 1, its strength 2.0",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_line(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    done = run("patterns", "test", "--days", "1", written(tmp_path, name, text))
    assert done.returncode == 1
    assert said in done.stderr


def test_on_a_random_market(tmp_path: Path) -> None:
    file = written(tmp_path, "rising.py", RISING)
    told = run("patterns", "test", "--days", "5", file).stdout
    (pattern,) = load(Path(file))
    market = Market(5, 5)
    for outcome in market.try_out(pattern, Remembering()):
        candles, _, _ = market._candles(outcome.timeframe)
        rising = int(np.count_nonzero(candles.close > candles.open))
        assert (outcome.candles, len(outcome.hits)) == (len(candles), rising)
        rate = f"{1000 * rising / len(candles):.1f}"
        row = (
            rf"^{outcome.timeframe} +{len(candles):,} +{rising:,} +{rate} +{rising:,} +0 +0 +1.00  "
        )
        assert re.search(row, told, re.MULTILINE)
    sql = run("patterns", "test", written(tmp_path, "falling.sql", FALLING))
    assert sql.returncode == 0
    assert "To try a pattern in SQL, give --database-url" in sql.stdout


def test_the_random_market_s_candles_are_those_of_its_bars() -> None:
    """Against the definition: each candle of the bars that begin in it, New York time."""
    market = Market(2, 7)
    minutes, _, _ = market._candles("1min")
    for timeframe, width in (("5min", 300), ("1hour", 3600)):
        candles, begins, symbols = market._candles(timeframe)
        assert begins[0] == 0
        assert symbols[begins[1] - 1] != symbols[begins[1]]
        assert candles.volume.sum() == pytest.approx(minutes.volume.sum())
        assert (candles.ts % width == 0).all()
    daily, begins, _ = market._candles("daily")
    assert len(daily) == 2 * 5
    first = (minutes.ts >= daily.opens_at[0]) & (minutes.ts < daily.closes_at[0])
    first &= np.arange(len(minutes)) < len(minutes) // 2  # of the first symbol
    assert daily.open[0] == minutes.open[first][0]
    assert daily.high[0] == minutes.high[first].max()
    assert daily.low[0] == minutes.low[first].min()
    assert daily.close[0] == minutes.close[first][-1]
    weekly, _, _ = market._candles("weekly")
    assert len(weekly) == 2
    assert weekly.close[0] == daily.close[4]
    monthly, _, _ = market._candles("monthly")
    assert monthly.high[0] == daily.high[:5].max()


def test_on_stored_candles(url: str, conn: Connection[TupleRow], tmp_path: Path) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url}
    file = written(tmp_path, "falling.sql", FALLING)
    for symbols in ((), ("--symbol", "TSLA")):
        empty = run("patterns", "test", file, *symbols, **settings)
        assert empty.returncode == 1
        assert "the database has no bars to try it on" in empty.stderr
    conn.execute(BARS)
    conn.execute("delete from ohlcv_1min where ts = latest_minute()")
    told = run("patterns", "test", file, **settings).stdout
    assert "on AAPL, TSLA, 30 days" in told
    # The last candle, a falling one, is not complete: its last minute is missing.
    assert re.search(r"^5min +22 +10 +454\.5 +0 +10 +0 +1\.00  ", told, re.MULTILINE), told
    file = written(tmp_path, "rising.py", RISING)
    told = run("patterns", "test", "--symbol", "TSLA", file, **settings).stdout
    assert re.search(r"^5min +11 +6 +545\.5 +6 +0 +0 +1\.00  TSLA 2025-11-24 15:20$", told, re.M)
    unknown = run("patterns", "test", "--symbol", "tsla", file, **settings)
    assert unknown.returncode == 1
    assert "no candles of 'tsla': did you mean TSLA?" in unknown.stderr
    centuries = run("patterns", "test", "--days", "1000000", file, **settings)
    assert centuries.returncode == 2
    assert "1000000 is not in the range 1<=x<=36500" in centuries.stderr
    ages = run("patterns", "test", "--days", "36500", file, **settings)
    assert ages.returncode == 0, ages.stderr
    broken = written(tmp_path, "broken.sql", FALLING.replace("back = 0", "behind = 0"))
    done = run("patterns", "test", broken, **settings)
    assert done.returncode == 1
    assert 'Falling fails on 5min candles: UndefinedColumn: column "behind" does not' in done.stderr
    assert conn.execute("select * from events").fetchall() == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.py", "gone.sql"):
        with pytest.raises(BrokenFileError, match="No such file"):
            load(tmp_path / name)
