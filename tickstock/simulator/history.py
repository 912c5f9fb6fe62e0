"""What the simulated market has traded so far: the truth, and what the REST API tells."""

from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import isnan, nan

from tickstock.bars import Bar
from tickstock.simulator.events import milliseconds

_COLUMNS = (
    8  # start in ms, open, high, low, close, volume, vwap (NaN: not told), trades (0: not told)
)


class History:
    """Every bar of the minutes that are over: 64 bytes each, once it has been sorted in."""

    def __init__(self) -> None:
        self._new: list[Sequence[Bar]] = []
        self._rows: dict[str, array[float]] = {}

    def add(self, bars: Sequence[Bar]) -> None:
        """Add a minute; a later bar of a symbol and start replaces the earlier one."""
        self._new.append(bars)

    def sort_in(self) -> None:
        """Do the work that `add` left for a better time; reading does it too."""
        new, self._new = self._new, []
        for bars in new:
            for symbol, ts, *prices, volume, vwap, trades in bars:
                row = self._rows.get(symbol)
                if row is None:
                    row = self._rows[symbol] = array("d")
                row.append(milliseconds(ts))
                row.extend(map(float, (*prices, volume)))
                row.extend((nan if vwap is None else float(vwap), trades or 0))

    @property
    def symbols(self) -> Sequence[str]:
        """The symbols that have a bar, sorted."""
        self.sort_in()
        return sorted(self._rows)

    def bars(self, symbol: str, begin: float, end: float) -> list[Bar]:
        """A symbol's bars that start from `begin` to `end`, both in ms and included, by start."""
        self.sort_in()
        return [bar for start, bar in sorted(self._latest(symbol)) if begin <= start <= end]

    def truth(self) -> dict[tuple[str, datetime], Bar]:
        """Every bar by symbol and start: what a table must hold in the end."""
        return {(symbol, bar.ts): bar for symbol in self.symbols for _, bar in self._latest(symbol)}

    def _latest(self, symbol: str) -> Iterator[tuple[float, Bar]]:
        rows = self._rows.get(symbol, array("d")).tolist()
        latest = {rows[place]: place for place in range(0, len(rows), _COLUMNS)}
        for start, place in latest.items():
            *numbers, vwap, trades = rows[place + 1 : place + _COLUMNS]
            opened, high, low, close, volume = map(_whole, numbers)
            yield (
                start,
                Bar(
                    symbol,
                    datetime.fromtimestamp(start / 1_000, UTC),
                    opened,
                    high,
                    low,
                    close,
                    volume,
                    None if isnan(vwap) else _whole(vwap),
                    int(trades) or None,
                ),
            )


def _whole(number: float) -> int | float:
    """As JSON carries it best; equal to what came in, whichever it was."""
    return int(number) if number.is_integer() else number
