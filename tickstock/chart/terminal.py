"""Candles as a chart of characters."""

import math
from collections.abc import Sequence
from typing import Protocol

import click

from tickstock.chart import axis, words
from tickstock.chart.series import Candle, Event, Series

HEIGHT = 14
COLUMNS = 2
"""Of characters, for a candle."""
VOLUME_HEIGHT = 3
SHOWN_EVENTS = 10
SEVERAL = "•"
"""Where a candle has events of more than one direction."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
_TICK_ROOM = 8
"""Characters from one label of time to the next."""


class Prices(Protocol):
    """What a candle is drawn from: dollars."""

    @property
    def open(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def close(self) -> float: ...


class Placed(Prices, Protocol):
    @property
    def place(self) -> int: ...


def chart(candles: Sequence[Placed], *, width: int, colors: bool) -> str:
    """Lines of at most `width` characters. Where that is too few, the oldest candles are left out.

    Below stands each candle's place: 0 is the one that completed the pattern. ValueError for no candle.
    """
    if not candles:
        raise ValueError("a chart needs candles")
    shown = candles[-_fitting(candles, width) :]
    places = sorted({shown[0].place, 0, shown[-1].place})
    ticks = [(n, f"{n:+d}" if n else "0") for n in places]
    first = shown[0].place
    return _prices(shown, [(n - first, label) for n, label in ticks], HEIGHT, colors)


def series_chart(series: Series, *, width: int, height: int, colors: bool) -> str:
    """Heading, candles, events and volume, then the latest events in words.

    Lines of at most `width` characters; `height` is that of the candles. Where the width is too small,
    the oldest candles are left out.
    """
    count = _fitting(series.candles, width)
    hidden = max(0, len(series.candles) - count)
    candles = series.candles[hidden:]
    events = [event for event in series.events if event.place >= hidden]
    shown = Series(series.symbol, series.timeframe, candles, events)
    ticks = axis.choose(axis.ranked(candles), max(1, COLUMNS * len(candles) // _TICK_ROOM))
    margin = _label_width(candles) + 1
    lines = [
        *_wrapped(f"{words.heading(shown)}: {words.subheading(shown)}", width),
        _prices(candles, [(tick.place, tick.label) for tick in ticks], height, colors),
        *_marks(events, hidden, len(candles), margin),
        *_volume(candles, margin),
        *_told(series, events, width),
    ]
    return "\n".join(lines)


def _fitting(candles: Sequence[Prices], width: int) -> int:
    """How many candles there is room for."""
    return max(1, (width - _label_width(candles) - 3) // COLUMNS)


def _label_width(candles: Sequence[Prices]) -> int:
    return len(f"{max(each.high for each in candles):.2f}")


def _prices(
    shown: Sequence[Prices], ticks: Sequence[tuple[int, str]], height: int, colors: bool
) -> str:
    import plotext  # takes a moment, and only few need it

    labels = _label_width(shown)
    low, high = min(each.low for each in shown), max(each.high for each in shown)
    plotext.terminal.limit(False, False)  # as wide as asked for, whatever the terminal
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    # So many columns that all candles are equally far apart.
    figure.plot_size(labels + 2 + COLUMNS * (len(shown) - 1) + 1, height)
    figure.draw(
        figure.candlestick(
            {
                "date": list(range(len(shown))),
                "open": [each.open for each in shown],
                "close": [each.close for each in shown],
                "high": [each.high for each in shown],
                "low": [each.low for each in shown],
            }
        )
    )
    figure.ruler("x").ticks([place for place, _ in ticks], [label for _, label in ticks])
    prices = [low, (low + high) / 2, high]
    figure.ruler("y").ticks(prices, [f"{price:{labels}.2f}" for price in prices])
    drawn = str(figure.build()).rstrip("\n")
    return drawn if colors else str(plotext.uncolorize(drawn))


def _marks(events: Sequence[Event], hidden: int, count: int, margin: int) -> list[str]:
    """A line with a sign below each candle that has events; none if there are none."""
    if not events:
        return []
    found: list[set[str]] = [set() for _ in range(count)]
    for event in events:
        found[event.place - hidden].add(words.SIGNS[event.direction])
    signs = [SEVERAL if len(each) > 1 else "".join(each) or " " for each in found]
    return [_row("events", signs, margin)]


def _volume(candles: Sequence[Candle], margin: int) -> list[str]:
    most = max(each.volume for each in candles)
    eighths = [math.ceil(8 * VOLUME_HEIGHT * each.volume / most) if most else 0 for each in candles]
    rows = []
    for floor in range(VOLUME_HEIGHT - 1, -1, -1):
        blocks = [_BLOCKS[min(8, max(0, each - 8 * floor))] for each in eighths]
        label = words.short(most) if floor == VOLUME_HEIGHT - 1 else ""
        rows.append(_row(label, blocks, margin))
    return rows


def _row(label: str, signs: Sequence[str], margin: int) -> str:
    gap = " " * (COLUMNS - 1)
    told = label if len(label) < margin else ""
    return f"{told:>{margin - 1}} {gap.join(signs)}".rstrip()


def _told(series: Series, events: Sequence[Event], width: int) -> list[str]:
    """The latest events, a line each."""
    lines = []
    for event in events[-SHOWN_EVENTS:]:
        what = words.event_lines(event)[0]
        lines.append(
            f"{words.SIGNS[event.direction]} {words.moment(series.candles[event.place])}  {what}"
        )
    if len(events) > SHOWN_EVENTS:
        lines.insert(0, f"the latest of {len(events):,} events:")
    return [_printable(line)[:width] for line in lines]


def _wrapped(text: str, width: int) -> list[str]:
    return click.wrap_text(_printable(text), width).splitlines()


def _printable(text: str) -> str:
    """Names come from feeds and files: none may command the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
