"""Candles as a small chart of characters."""

from collections.abc import Sequence

from tickstock.scan.explain import Candle

HEIGHT = 14
COLUMNS = 2
"""Of characters, for a candle."""


def chart(candles: Sequence[Candle], *, width: int, colors: bool) -> str:
    """Lines of at most `width` characters. Where that is too few, the oldest candles are left out.

    Below stands each candle's place: 0 is the one that completed the pattern. ValueError for no candle.
    """
    import plotext  # takes a moment, and only few need it

    if not candles:
        raise ValueError("a chart needs candles")
    top = max(each.high for each in candles)
    labels = len(f"{top:.2f}")
    shown = candles[-max(1, (width - labels - 3) // COLUMNS) :]
    low, high = min(each.low for each in shown), max(each.high for each in shown)
    plotext.terminal.limit(False, False)  # as wide as asked for, whatever the terminal
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    # So many columns that all candles are equally far apart.
    figure.plot_size(labels + 2 + COLUMNS * (len(shown) - 1) + 1, HEIGHT)
    figure.draw(
        figure.candlestick(
            {
                "date": [each.place for each in shown],
                "open": [each.open for each in shown],
                "close": [each.close for each in shown],
                "high": [each.high for each in shown],
                "low": [each.low for each in shown],
            }
        )
    )
    places = sorted({shown[0].place, 0, shown[-1].place})
    figure.ruler("x").ticks(places, [f"{place:+d}" if place else "0" for place in places])
    prices = [low, (low + high) / 2, high]
    figure.ruler("y").ticks(prices, [f"{price:{labels}.2f}" for price in prices])
    drawn = str(figure.build()).rstrip("\n")
    return drawn if colors else str(plotext.uncolorize(drawn))
