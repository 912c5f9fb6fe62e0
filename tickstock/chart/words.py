"""What charts say in words. Times are New York's."""

from tickstock.chart.series import Candle, Event, Series
from tickstock.counted import counted

SIGNS = {"long": "▲", "short": "▼", "neutral": "◆"}
SHOWN_DETAILS = 8


def heading(series: Series) -> str:
    return f"{series.symbol} {series.timeframe}"


def subheading(series: Series) -> str:
    """Range, change and the last price, in a line."""
    first, last = series.candles[0], series.candles[-1]
    change = f" ({100 * (last.close / first.open - 1):+.2f} %)" if first.open else ""
    return (
        f"{moment(first)} to {moment(last)}, New York time · {counted(len(series.candles), 'candle')} · "
        f"last {price(last.close)}{change}"
    )


def moment(candle: Candle) -> str:
    return f"{candle.ts:%Y-%m-%d}" if _is_midnight(candle) else f"{candle.ts:%Y-%m-%d %H:%M}"


def price(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.6g}"


def short(volume: float) -> str:
    """1.5M for 1,500,000 shares."""
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if volume >= 0.9995 * size:  # as many digits round it up to
            return f"{volume / size:.3g}{sign}"
    return f"{volume:.3g}"


def candle_lines(candle: Candle) -> list[str]:
    """All of a candle."""
    vwap = f"  VWAP {price(candle.vwap)}" if candle.vwap is not None else ""
    remarks = [candle.session] if candle.session not in (None, "regular") else []
    remarks += ["forming"] if not candle.complete else []
    return [
        f"{candle.ts:%a} {moment(candle)} New York"
        + "".join(f", {each}" for each in remarks if each),
        f"O {price(candle.open)}  H {price(candle.high)}  L {price(candle.low)}  C {price(candle.close)}",
        f"Volume {candle.volume:,.10g}{vwap}",
    ]


def event_lines(event: Event) -> list[str]:
    """All of an event but its candle."""
    details = [f"{name} = {_value(value)}" for name, value in event.details.items()]
    if len(details) > SHOWN_DETAILS:
        details = [*details[:SHOWN_DETAILS], "…"]
    return [
        f"{event.pattern}, {event.direction}, strength {event.strength:.2f}, at {price(event.price)}",
        *([", ".join(details)] if details else []),
    ]


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _is_midnight(candle: Candle) -> bool:
    return (candle.ts.hour, candle.ts.minute) == (0, 0)
