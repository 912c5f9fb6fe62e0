"""The oracle counts half hours once and sums them up: the same as pandas makes of all bars directly."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from tests.contract.exchange import NEW_YORK
from tests.contract.oracle import LARGER, OFFICIAL, REGULAR, candles_of, parts_of

WIDTHS = {"5min": "5min", "15min": "15min", "30min": "30min", "1hour": "1h"}
PERIODS = {"daily": "D", "weekly": "W-SUN", "monthly": "M"}


@pytest.mark.parametrize("timeframe", LARGER)
def test_half_hours_add_up(timeframe: str) -> None:
    rng = random.Random(timeframe)
    begin = datetime(2025, 10, 30, tzinfo=UTC)  # clocks are put back on the third day after
    bars = {
        (symbol, begin + timedelta(minutes=rng.randrange(9 * 24 * 60))): rng.randint(2, 99)
        for symbol in "AB"
        for _ in range(2000)
    }
    rows = [
        (symbol, ts, *map(Decimal, (price, price + 1, price - 1, price, 10 * price, price)), None)
        for (symbol, ts), price in bars.items()
    ]
    ours = {
        key: tuple(map(float, candle[:6])) + candle[6:8]
        for key, candle in candles_of(parts_of(rows), timeframe, None, OFFICIAL).items()
    }

    frame = pd.DataFrame([(*key, price) for key, price in bars.items()], columns=["s", "ts", "p"])
    frame = frame.sort_values("ts")
    local = frame["ts"].dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    if timeframe in REGULAR:  # none of these days is special
        minute = local.dt.hour * 60 + local.dt.minute
        regular = (local.dt.day_of_week < 5) & (minute >= 9 * 60 + 30) & (minute < 16 * 60)
        frame, local = frame[regular], local[regular]
        starts = local.dt.to_period(PERIODS[timeframe]).dt.start_time.dt.tz_localize(NEW_YORK)
    elif timeframe == "4hour":
        starts = local.dt.floor("4h").dt.tz_localize(NEW_YORK)
    else:
        starts = frame["ts"].dt.floor(WIDTHS[timeframe])
    theirs = {}
    for (symbol, start), group in frame.groupby(["s", starts]):
        price, volume = group["p"].astype(float), group["p"].sum() * 10.0
        prices = (price.iloc[0], price.max() + 1, price.min() - 1, price.iloc[-1])
        vwap = float(sum(p * p * 10 for p in group["p"])) / volume
        key = (str(symbol), pd.Timestamp(str(start)).tz_convert(UTC).to_pydatetime())
        theirs[key] = (*prices, volume, vwap, None, len(group))
    assert ours == theirs != {}
