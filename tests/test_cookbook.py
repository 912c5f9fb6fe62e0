"""The cookbook's queries, on each engine, against the same questions answered by pandas."""

import re
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.test_docs import DOCUMENTS
from tickstock.db.connection import connect

RECIPES = {
    int(number): query
    for number, query in re.findall(
        r"^### (\d+)\. [^\n]+\n\n```sql\n(.*?)^```$", DOCUMENTS["docs/cookbook.md"], re.M | re.S
    )
}
DAYS = ["2025-11-20", "2025-11-21", "2025-11-24", "2025-11-25", "2025-11-26", "2025-11-28"]
CLOSES = {"2025-11-28": time(13)}
NUMBERS = ["open", "high", "low", "close", "volume", "vwap"]
TUESDAY = date(2025, 11, 25)
TOLD = ("10:00", "11:00")
"""Of that day another source has told TSLA's bars, New York time."""

Frame = pd.DataFrame
Rows = list[tuple[Any, ...]]


def make_market() -> Frame:
    """Four symbols on six days, one of them half. They move together, and alone; some minutes are empty."""
    random = np.random.default_rng(20251125)
    minutes = pd.DatetimeIndex(
        np.concatenate([
            pd.date_range(f"{day} 08:30", f"{day} 16:59", freq="min", tz="America/New_York")
            .tz_convert("UTC").tz_localize(None).to_numpy()
            for day in DAYS
        ])
    ).tz_localize("UTC")  # fmt: skip
    common = random.normal(0, 4e-4, len(minutes))
    parts = []
    for symbol, price, beta in (
        ("AAPL", 270, 1.2),
        ("MSFT", 480, 0.9),
        ("SPY", 660, 1),
        ("TSLA", 400, 2),
    ):
        steps = beta * common + random.normal(0, 4e-4, len(minutes))
        close = np.round(price * np.exp(np.cumsum(steps)), 2)
        opens = np.round(close * np.exp(random.normal(0, 2e-4, len(minutes))), 2)
        part = pd.DataFrame({"symbol": symbol, "ts": minutes, "open": opens, "close": close})
        part["high"] = part[["open", "close"]].max(axis=1) + np.round(
            random.random(len(minutes)), 2
        )
        part["low"] = part[["open", "close"]].min(axis=1) - np.round(random.random(len(minutes)), 2)
        part["high"], part["low"] = part["high"].round(2), part["low"].round(2)
        part["volume"] = np.round(random.lognormal(6, 1, len(minutes))).astype(int) + 1
        part["vwap"] = ((part["high"] + part["low"]) / 2).round(3)
        parts.append(part[random.random(len(minutes)) > 0.07])
    frame = pd.concat(parts, ignore_index=True)
    local = frame["ts"].dt.tz_convert("America/New_York")
    frame["local"], frame["day"] = local, local.dt.date
    clock = local.dt.time
    closes = frame["day"].map(lambda day: CLOSES.get(str(day), time(16)))
    frame["session"] = np.select([clock < time(9, 30), clock < closes], ["pre", "regular"], "after")
    return frame


MARKET = make_market()
FIRST_TO_LAST = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def candles(width: str, symbol: str | None = None, frame: Frame = MARKET) -> Frame:
    """Candles counted on the clock, with turnover and the session of their first minute."""
    if symbol:
        frame = frame[frame["symbol"] == symbol]
    frame = frame.assign(
        start=frame["ts"].dt.floor(width), turnover=frame["vwap"] * frame["volume"]
    )
    made = frame.groupby(["symbol", "start"]).agg(
        {**FIRST_TO_LAST, "turnover": "sum", "day": "first", "session": "first"}
    )
    return made.reset_index().rename(columns={"start": "ts"})


def of_tuesday(width: str, symbol: str | None = None) -> Frame:
    made = candles(width, symbol)
    return made[(made["day"] == TUESDAY) & (made["session"] == "regular")]


def days() -> Frame:
    regular = MARKET[MARKET["session"] == "regular"]
    made = regular.groupby(["symbol", "day"]).agg(FIRST_TO_LAST).reset_index()
    made["previous_close"] = made.groupby("symbol")["close"].shift()
    made["gap"] = made["open"] / made["previous_close"] - 1
    made["change"] = made["close"] / made["previous_close"] - 1
    return made


def later_days() -> Frame:
    return days().dropna()


def midnight(day: date) -> pd.Timestamp:
    return pd.Timestamp(day, tz="America/New_York").tz_convert("UTC")


def rows(frame: Frame, *columns: str) -> Rows:
    return list(frame[list(columns)].itertuples(index=False, name=None))


def steps(frame: Frame) -> Frame:
    return frame.assign(step=frame.groupby("symbol")["close"].transform(lambda c: np.log(c).diff()))


def latest_prices() -> Rows:
    last = MARKET[MARKET["symbol"] != "MSFT"].groupby("symbol").last().reset_index()
    before = days()[days()["day"] == date(2025, 11, 26)].set_index("symbol")["close"]
    last["percent"] = 100 * (last["close"] / last["symbol"].map(before) - 1)
    return rows(last, "symbol", "close", "ts", "percent")


def last_days() -> Rows:
    made = days()[days()["symbol"] == "AAPL"].tail(5).iloc[::-1]
    made = made.assign(ts=made["day"].map(midnight))
    return rows(made, "ts", *FIRST_TO_LAST)


def movers() -> Rows:
    made = later_days()
    made = made[made["day"] == TUESDAY].sort_values("change", ascending=False)
    up, down = made[made["change"] > 0].head(2), made[made["change"] < 0].tail(2)
    both = pd.concat([up, down]).assign(percent=lambda f: 100 * f["change"])
    return rows(both, "symbol", "close", "percent")


def closed_gaps() -> Rows:
    made = later_days()
    made = made[made["gap"] != 0]
    closed = np.where(
        made["gap"] > 0,
        made["low"] <= made["previous_close"],
        made["high"] >= made["previous_close"],
    )
    return rows(made.assign(closed=closed), "symbol", "day", "closed")


def opening_range() -> Rows:
    first = of_tuesday("30min").groupby("symbol").first().reset_index()
    return rows(first.assign(width=first["high"] - first["low"]), "symbol", "high", "low", "width")


def opening_share() -> Rows:
    made = of_tuesday("30min").groupby("symbol")["volume"]
    return list((made.first() / made.sum()).items())


def vwaps() -> Rows:
    made = of_tuesday("1min").groupby("symbol")[["turnover", "volume"]].sum().reset_index()
    return rows(made.assign(vwap=made["turnover"] / made["volume"]), "symbol", "vwap", "volume")


def running_vwap() -> Rows:
    made = of_tuesday("30min", "AAPL")
    return rows(
        made.assign(running=made["turnover"].cumsum() / made["volume"].cumsum()),
        "ts",
        "close",
        "running",
    )


def busiest() -> Rows:
    made = candles("30min", "AAPL")
    made = made[(made["session"] == "regular") & (made["day"] < date(2025, 11, 27))]
    made["clock"] = made["ts"].dt.tz_convert("America/New_York").dt.time
    mean = made.groupby("clock")["volume"].mean().reset_index()
    return rows(mean.sort_values("volume", ascending=False).head(5), "clock", "volume")


def before_opening() -> Rows:
    made = MARKET[(MARKET["day"] == TUESDAY) & (MARKET["session"] == "pre")].groupby("symbol")
    return rows(
        made.agg({"low": "min", "high": "max", "volume": "sum"}).reset_index(),
        "symbol",
        "low",
        "high",
        "volume",
    )


def after_close() -> Rows:
    tuesday = MARKET[MARKET["day"] == TUESDAY]
    close = tuesday[tuesday["session"] == "regular"].groupby("symbol")["close"].last()
    after = tuesday[tuesday["session"] == "after"].groupby("symbol")["close"].last()
    return [(s, close[s], after[s], 100 * (after[s] / close[s] - 1)) for s in close.index]


def moving_average() -> Rows:
    made = of_tuesday("5min", "AAPL")
    made = made.assign(average=made["close"].rolling(20, min_periods=1).mean())
    return rows(made.tail(5).iloc[::-1], "ts", "close", "average")


def bands() -> Rows:
    made = candles("15min", "AAPL")
    made = made[(made["session"] == "regular") & made["day"].isin([date(2025, 11, 24), TUESDAY])]
    window = made["close"].rolling(20, min_periods=1)
    made = made.assign(
        lower=window.mean() - 2 * window.std(ddof=0), upper=window.mean() + 2 * window.std(ddof=0)
    )
    return rows(made.tail(5).iloc[::-1], "ts", "close", "lower", "upper")


def true_ranges() -> Rows:
    made = later_days()
    span = made[["high", "previous_close"]].max(axis=1) - made[["low", "previous_close"]].min(
        axis=1
    )
    return rows(made.assign(span=span), "symbol", "day", "span")


def betas() -> Rows:
    wide = steps(of_tuesday("15min")).pivot(index="ts", columns="symbol", values="step").dropna()
    market = wide["SPY"]
    return [(s, wide[s].cov(market) / market.var()) for s in ("AAPL", "TSLA")]


def correlation() -> Rows:
    wide = steps(of_tuesday("15min")).pivot(index="ts", columns="symbol", values="step").dropna()
    return [(wide["AAPL"].corr(wide["TSLA"]), len(wide))]


def ratio() -> Rows:
    a, s = of_tuesday("30min", "AAPL"), of_tuesday("30min", "SPY")
    made = a.merge(s, on="ts", suffixes=("", "_spy"))
    return rows(made.assign(ratio=made["close"] / made["close_spy"]), "ts", "ratio")


def drawdowns() -> Rows:
    made = candles("30min")
    made["fall"] = made["close"] / made.groupby("symbol")["close"].cummax() - 1
    return list(made.groupby("symbol")["fall"].min().items())


def highest() -> Rows:
    first = MARKET.sort_values(["symbol", "high", "ts"], ascending=[True, False, True])
    return rows(first.groupby("symbol").first().reset_index(), "symbol", "ts", "high")


def highest_of_three() -> Rows:
    made = days()
    best = made.groupby("symbol")["close"].transform(lambda c: c.rolling(3, min_periods=1).max())
    return rows(made.assign(is_best=made["close"] == best), "symbol", "day", "close", "is_best")


def weekdays() -> Rows:
    made = days()[days()["symbol"] == "AAPL"]
    made = made.assign(
        weekday=pd.to_datetime(made["day"]).dt.day_name(), span=made["high"] - made["low"]
    )
    told = made.groupby("weekday")["span"].agg(["mean", "count"]).reset_index()
    return rows(told.sort_values("mean", ascending=False), "weekday", "mean", "count")


def of_65_minutes() -> Rows:
    made = MARKET[
        (MARKET["symbol"] == "AAPL") & (MARKET["day"] == TUESDAY) & (MARKET["session"] == "regular")
    ]
    opens = pd.Timestamp("2025-11-25 14:30", tz="UTC")
    start = opens + pd.Timedelta("65min") * ((made["ts"] - opens) // pd.Timedelta("65min"))
    told = made.assign(start=start, bars=1).groupby("start").agg({**FIRST_TO_LAST, "bars": "sum"})
    return rows(told.reset_index(), "start", *FIRST_TO_LAST, "bars")


def half_day() -> Rows:
    made = MARKET[(MARKET["symbol"] == "AAPL") & (MARKET["day"] == date(2025, 11, 28))]
    told = made.groupby("session")["volume"].agg(["sum", "count"])
    minutes = {"pre": 330, "regular": 210, "after": 240}
    return [(s, m, told["sum"][s], told["count"][s]) for s, m in minutes.items()]


def trading_minutes() -> Rows:
    made = MARKET[(MARKET["symbol"] == "TSLA") & (MARKET["day"] == TUESDAY)]
    present = made.groupby("session")["ts"].count()
    minutes = {"after": 240, "pre": 330, "regular": 390}
    clock = made["local"].dt.strftime("%H:%M")
    told = int(((clock >= TOLD[0]) & (clock < TOLD[1])).sum())
    empty = {"after": 0, "pre": 0, "regular": 60 - told}
    return [(s, m, present[s], empty[s], m - present[s] - empty[s]) for s, m in minutes.items()]


def unusual() -> Rows:
    made = of_tuesday("1min", "AAPL")
    made = made.assign(times=made["volume"] / made["volume"].rolling(20).mean().shift())
    return rows(
        made.dropna().sort_values("times", ascending=False).head(5), "ts", "volume", "times"
    )


ANSWERS: dict[int, Callable[[], Rows]] = {
    1: latest_prices,
    2: last_days,
    3: lambda: rows(of_tuesday("5min", "AAPL"), "ts", *FIRST_TO_LAST),
    4: lambda: rows(
        later_days().query("symbol == 'AAPL'").assign(percent=lambda f: 100 * f["change"]),
        "day", "close", "previous_close", "percent",
    ),
    5: lambda: rows(
        later_days()
        .assign(percent=lambda f: 100 * f["gap"])
        .sort_values("gap", key=abs, ascending=False)
        .head(5),
        "symbol", "day", "previous_close", "open", "percent",
    ),
    6: movers,
    7: closed_gaps,
    8: opening_range,
    9: opening_share,
    10: vwaps,
    11: running_vwap,
    12: busiest,
    13: before_opening,
    14: after_close,
    15: moving_average,
    16: bands,
    17: true_ranges,
    18: lambda: list(steps(of_tuesday("5min")).groupby("symbol")["step"].std().items()),
    19: correlation,
    20: betas,
    21: ratio,
    22: drawdowns,
    23: highest,
    24: highest_of_three,
    25: lambda: [
        (s, (f["change"] > 0).sum(), (f["change"] < 0).sum()) for s, f in later_days().groupby("symbol")
    ],
    26: weekdays,
    27: of_65_minutes,
    28: half_day,
    29: trading_minutes,
    30: unusual,
}  # fmt: skip


@pytest.fixture(scope="module")
def market(engine: Engine) -> Iterator[Connection[TupleRow]]:
    """The market; older candles materialized, those of the last days live."""
    url = engine.clone()
    with connect(url, program="test") as conn:
        for later in (False, True):
            with conn.cursor() as cursor, cursor.copy(
                "copy ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap) from stdin"
            ) as copy:  # fmt: skip
                for row in rows(
                    MARKET[(MARKET["day"] >= TUESDAY) == later], "symbol", "ts", *NUMBERS
                ):
                    copy.write_row(row)
            if not later:
                conn.execute("call ohlcv_refresh()")
        conn.execute(
            "insert into backfills (symbol, starts, ends, source, asked_at, settled, bars)"
            " select 'TSLA', (day + t.a) at time zone 'America/New_York',"
            " (day + t.b) at time zone 'America/New_York', 'rest', now(), true, 1"
            " from (values (%s::date, %s::time, %s::time)) t (day, a, b)",
            (TUESDAY, *TOLD),
        )
        yield conn
    engine.drop(url)


def test_there_are_thirty_and_each_has_an_answer() -> None:
    assert list(RECIPES) == list(ANSWERS) == list(range(1, 31))


@pytest.mark.parametrize("number", list(ANSWERS))
def test_a_recipe(market: Connection[TupleRow], number: int) -> None:
    wanted = ANSWERS[number]()
    got = market.execute(RECIPES[number].encode()).fetchall()
    assert wanted, "a question that has an answer"
    assert len(got) == len(wanted), (got, wanted)
    for row, other in zip(got, wanted, strict=True):
        assert len(row) == len(other)
        for a, b in zip(row, other, strict=True):
            if isinstance(a, Decimal):
                digits = (
                    -int(a.as_tuple().exponent) if isinstance(a.as_tuple().exponent, int) else 0
                )
                assert float(a) == pytest.approx(float(b), abs=0.51 * 10**-digits, rel=1e-9), (
                    row,
                    other,
                )
            else:
                assert a == b, (row, other)
