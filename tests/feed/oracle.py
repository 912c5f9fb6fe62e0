"""The minute bars of trades, worked out in pandas from the vendor's list of conditions alone."""

from collections.abc import Iterable
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from tickstock.bars import Bar
from tickstock.ticks import Trade

MINUTE = 60_000
Key = tuple[str, datetime]

# high and low, open and close, volume: the vendor's list of conditions, those with a "no" in it.
CONDITIONS = {
    2: "nny", 5: "yny", 7: "nny", 10: "yny", 12: "nny", 13: "nny", 15: "nnn", 16: "nnn", 20: "nny",
    21: "nny", 22: "yny", 29: "yny", 32: "yny", 33: "yny", 37: "nny", 38: "yyn", 52: "nny",
    53: "nny", 0: "yyy", 8: "yyy", 14: "yyy", 25: "yyy", 41: "yyy", 9: "yyy",
}  # fmt: skip


def by_key(bars: Iterable[Bar]) -> dict[Key, Bar]:
    return {(bar.symbol, bar.ts): bar for bar in bars}


def ts_of(at: int) -> datetime:
    return datetime.fromtimestamp(at // MINUTE * 60, UTC)


def allows(trade: Trade) -> tuple[bool, ...]:
    """Whether it may set high and low, open and close, and add to the volume."""
    codes = set(trade.conditions)
    if 12 in codes:
        local = datetime.fromtimestamp(trade.at / 1000, ZoneInfo("America/New_York")).time()
        if not time(9, 30) <= local < time(16):
            codes.remove(12)  # Form T counts like any other then
    return tuple(all(CONDITIONS[code][what] == "y" for code in codes) for what in range(3))


def oracle(trades: Iterable[Trade]) -> dict[Key, Bar]:
    """The bars of these trades, by pandas."""
    rows = [
        (t.symbol, ts_of(t.at), t.at, t.sequence, t.price, Decimal(str(t.size)), *allows(t))
        for t in trades
    ]
    columns = ["symbol", "ts", "at", "q", "price", "size", "extreme", "last", "counts"]
    frame = pd.DataFrame(rows, columns=columns).drop_duplicates(["symbol", "ts", "q"])
    bars = {}
    for (symbol, ts), group in frame.sort_values(["at", "q"]).groupby(["symbol", "ts"]):
        extremes = group[group["extreme"]]
        if extremes.empty:
            continue
        ends = extremes[extremes["last"]] if extremes["last"].any() else extremes
        counted = group[group["counts"]]
        key = (str(symbol), pd.Timestamp(str(ts)).to_pydatetime())
        volume = sum(counted["size"], Decimal(0))
        bars[key] = Bar(
            *key,
            ends["price"].iloc[0],
            extremes["price"].max(),
            extremes["price"].min(),
            ends["price"].iloc[-1],
            volume,
            vwap(counted, volume),
            len(counted),
        )
    return bars


def vwap(counted: Any, volume: Decimal) -> float | None:
    if not volume:
        return None
    turnover = sum(
        (Decimal(str(p)) * s for p, s in zip(counted["price"], counted["size"], strict=True)),
        Decimal(0),
    )
    return float((turnover / volume).quantize(Decimal("0.0001"), ROUND_HALF_EVEN))
