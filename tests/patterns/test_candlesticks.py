"""TA-Lib's 61: windows, one by one or end to end, find what TA-Lib finds on the whole series.

`pytest --log-cli-level=info` shows how many candles were compared and how many times each pattern was there.
"""

import logging
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.patterns.windows import PATTERNS, TALIB, chosen
from tickstock.patterns import Candles
from tickstock.patterns.candlesticks import CANDLES
from tickstock.patterns.evaluate import Failures, Hits, history_columns, live_columns

log = logging.getLogger(__name__)

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted(DATA.glob("minute_aggs_2013-10-*.csv.gz"))
NAMES: list[str] = talib.get_function_groups()["Pattern Recognition"]  # type: ignore[no-untyped-call]
CHOSEN = [chosen(name, "1min") for name in NAMES]
AGREES_ON_FLOATS = 0.999
"""The share of results that TA-Lib gives on prices as floats as well."""

LONGEST = 18
"""Candles of a young symbol, at most."""

Prices = NDArray[np.int64]
"""(4, length): open, high, low and close in whole millionths of a dollar."""


def random_prices(seed: int, size: int, tick: int, level: int, spread: int) -> Prices:
    """A random walk in ticks, in stretches of lively and of quiet trade; many prices are equal."""
    rng = np.random.default_rng(seed)
    lively = np.repeat(rng.integers(1, spread + 1, size // 20 + 1), 20)[:size]
    body = np.round(rng.normal(0, 1, size) * lively).astype(np.int64)
    gap = np.where(rng.random(size) < 0.6, 0, np.round(rng.normal(0, 0.7, size) * lively))
    close = np.cumsum(body + gap.astype(np.int64))
    open_ = close - body
    shadows = np.round(rng.exponential(0.5, (2, size)) * lively * (rng.random((2, size)) < 0.6))
    high = np.maximum(open_, close) + shadows[0].astype(np.int64)
    low = np.minimum(open_, close) - shadows[1].astype(np.int64)
    prices = np.stack((open_, high, low, close))
    # Walks may go far: they are brought back above zero.
    prices += max(level, 10 - int(prices.min()))
    return prices * tick


def few_prices(seed: int, size: int, tick: int, level: int) -> Prices:
    """Candles that know nothing of each other, at a handful of prices: rare patterns are there too."""
    rng = np.random.default_rng(seed)
    four = np.sort(rng.integers(0, 7, (size, 4)), axis=1)
    up = rng.random(size) < 0.5
    open_, close = np.where(up, four[:, 1], four[:, 2]), np.where(up, four[:, 2], four[:, 1])
    return (np.stack((open_, four[:, 3], four[:, 0], close)) + level) * tick


def real_prices() -> list[Prices]:
    days = pd.concat([pd.read_csv(file) for file in FILES]) if FILES else pd.DataFrame()
    columns = ["open", "high", "low", "close"]
    return [
        np.rint(of_symbol.sort_values("window_start")[columns].to_numpy().T * 1e6).astype(np.int64)
        for _, of_symbol in (days.groupby("ticker") if FILES else ())
    ]


@cache
def all_series() -> list[Prices]:
    """Real days, and random markets in cents, tenths of a cent and hundredths of one."""
    return [
        *real_prices(),
        random_prices(2, 60_000, 10_000, 10_000, 6),
        random_prices(2, 20_000, 10_000, 70_000, 40),
        random_prices(3, 20_000, 100, 5_000, 25),
        random_prices(4, 15_000, 1_000, 300_000, 9),
        few_prices(5, 20_000, 10_000, 1_000),
        few_prices(6, 20_000, 100, 3_333),
    ]


def candles_of(prices: Prices) -> Candles:
    open_, high, low, close = prices / 1e6
    ts = np.arange(len(open_)).astype(np.float64) * 60
    never = np.full(len(open_), np.nan)
    return Candles("1min", ts, open_, high, low, close, np.ones(len(open_)), never, never)


def windows_of(c: Candles, first: int, length: int) -> Candles:
    """Windows as the scanner has them: (length, windows), copies, the first one judging `first`."""
    columns = (
        sliding_window_view(column[first - length + 1 :], length).T.copy() for column in c.columns
    )
    return c.with_columns(columns, c.opens_at[first:], c.closes_at[first:])


def offline(name: str, prices: NDArray[np.float64]) -> NDArray[np.int32]:
    result: NDArray[np.int32] = getattr(talib, name)(*prices)
    return result


def values(hits: list[Hits], size: int) -> dict[str, NDArray[np.int32]]:
    """TA-Lib's result for each candle, as our hits tell it; direction and strength must fit."""
    found = {name: np.zeros(size, dtype=np.int32) for name in NAMES}
    for hit in hits:
        value = hit.details["value"]
        assert (np.sign(value) == hit.direction).all()
        assert (np.minimum(np.abs(value) / 100, 1) == hit.strength).all()
        assert not found[hit.pattern][hit.at].any(), "twice"
        found[hit.pattern][hit.at] = value
    return found


def test_all_of_them_are_there_with_their_parameters() -> None:
    assert len(NAMES) == 61
    assert sorted(NAMES) == TALIB
    assert PATTERNS["CDLDARKCLOUDCOVER"].parameters == {"penetration": 0.5}
    assert PATTERNS["CDLMORNINGSTAR"].parameters == {"penetration": 0.3}
    assert PATTERNS["CDLDOJI"].parameters == {}
    assert (
        PATTERNS["CDL3BLACKCROWS"].summary
        == "Three Black Crows, as TA-Lib's CDL3BLACKCROWS finds it."
    )


def test_live_and_history_find_what_talib_finds_offline() -> None:
    counts: Counter[str] = Counter()
    on_floats: Counter[str] = Counter()
    compared = 0
    for prices in all_series():
        candles, size, failures = candles_of(prices), prices.shape[1], Failures()
        history = values(list(history_columns(CHOSEN, candles, failures)), size)
        first = CANDLES - 1
        windows = windows_of(candles, first, CANDLES)
        live = values(list(live_columns(CHOSEN, windows, failures)), size - first)
        assert failures == Failures()
        for name in NAMES:
            whole = offline(name, prices.astype(np.float64))
            assert (history[name] == whole).all(), name
            assert (live[name] == whole[first:]).all(), name
            counts[name] += int((whole != 0).sum())
            on_floats[name] += int((offline(name, prices / 1e6) != whole).sum())
        compared += size
    log.info(
        "%s candles, %s results, of which TA-Lib finds %s otherwise on prices as floats: %s",
        *(f"{compared:,}", f"{counts.total():,}", f"{on_floats.total():,}"),
        ", ".join(f"{name} {counts[name]:,} ({on_floats[name]:,})" for name in NAMES),
    )
    assert compared > 100_000
    assert all(counts[name] for name in NAMES), counts
    assert 0 < on_floats.total() < (1 - AGREES_ON_FLOATS) * compared * len(NAMES)


def test_a_young_symbol_has_what_talib_finds_in_its_few_candles() -> None:
    """Alone, among full windows, and as one of many series in a row."""
    places = {
        (number, int(at) + 1)
        for number, prices in enumerate(all_series())
        for name in NAMES
        for at in offline(name, prices.astype(np.float64))[LONGEST:].nonzero()[0][:2] + LONGEST
    }
    found: Counter[str] = Counter()
    for number, end in sorted(places):
        pieces = [all_series()[number][:, end - size : end] for size in range(1, LONGEST + 1)]
        whole = candles_of(np.concatenate(pieces, axis=1))
        begins = np.cumsum([0, *(piece.shape[1] for piece in pieces[:-1])]).tolist()
        in_a_row = values(
            list(history_columns(CHOSEN, whole, Failures(), begins=begins)), len(whole)
        )
        live = values(list(live_columns(CHOSEN, panel(pieces), Failures())), LONGEST)
        for name in NAMES:
            alone = [offline(name, piece.astype(np.float64)) for piece in pieces]
            assert (in_a_row[name] == np.concatenate(alone)).all(), name
            assert live[name].tolist() == [of_piece[-1] for of_piece in alone], name
            found[name] += sum(bool(of_piece[-1]) for of_piece in alone)
    assert all(found[name] for name in NAMES), found


def panel(pieces: list[Prices]) -> Candles:
    """Windows of different lengths side by side, NaN before those that are short."""
    columns = np.full((6, LONGEST, len(pieces)), np.nan)
    for number, piece in enumerate(pieces):
        columns[:, LONGEST - piece.shape[1] :, number] = candles_of(piece).columns
    never = np.full(len(pieces), np.nan)
    ts, open_, high, low, close, volume = columns
    return Candles("1min", ts, open_, high, low, close, volume, never, never)


def test_parameters_reach_talib() -> None:
    prices = all_series()[-1]
    candles = candles_of(prices)
    deep = chosen("CDLDARKCLOUDCOVER", "1min", penetration=0.9)
    found = history_columns([deep], candles, Failures())
    at = [int(each) for hits in found for each in hits.at]
    open_, high, low, close = prices.astype(np.float64)
    expected = talib.CDLDARKCLOUDCOVER(open_, high, low, close, penetration=0.9)
    assert at == expected.nonzero()[0].tolist()
    assert len(at) < (offline("CDLDARKCLOUDCOVER", prices.astype(np.float64)) != 0).sum()


@pytest.mark.skipif(
    not FILES, reason="no minute_aggs_*.csv.gz in ../shared/data beside the repository"
)
def test_real_days_are_among_the_series() -> None:
    assert sum(prices.shape[1] for prices in real_prices()) > 9_000
