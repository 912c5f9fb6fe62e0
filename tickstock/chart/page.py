"""A chart as a page of HTML: one file that needs neither network nor server. Drawn by plotly.js."""

import html
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from tickstock.chart import axis, words
from tickstock.chart.looks import FALLING, MARKERS, OUTSIDE, RISING
from tickstock.chart.series import Event, Series
from tickstock.errors import ChartLibraryMissingError

SHOWN_EVENTS = 12
"""Of one candle, in the text one hovers for."""


def page(series: Series) -> str:
    """The page. What comes from the database is data in it, never markup.

    Raises ChartLibraryMissingError without the extra `chart`.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ChartLibraryMissingError(
            "a chart in HTML needs plotly: pip install 'tickstock[chart]'"
        ) from error
    parts = {
        "title": html.escape(words.heading(series)),
        "subtitle": html.escape(words.subheading(series)),
        "plotly": get_plotlyjs(),
        "chart": _json(_chart(series)),
    }
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    # In one go: nothing that is put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _json(value: object) -> str:
    """JSON that is safe within a script element."""
    text = orjson.dumps(value).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _chart(series: Series) -> dict[str, Any]:
    candles = series.candles
    return {
        "data": [_candles(series), _volume(series)],
        "events": [_markers(series, direction) for direction in MARKERS],
        "days": axis.new_days(candles),
        "outside": [tuple(each) for each in axis.outside_hours(candles)],
        "ticks": [tuple(each) for each in axis.ranked(candles)],
        "colors": {"rising": RISING, "falling": FALLING, "outside": OUTSIDE},
    }


def _candles(series: Series) -> dict[str, Any]:
    candles = series.candles
    return {
        "type": "candlestick",
        "x": list(range(len(candles))),
        **{
            name: [getattr(each, name) for each in candles]
            for name in ("open", "high", "low", "close")
        },
        "text": _texts(series),
    }


def _volume(series: Series) -> dict[str, Any]:
    candles = series.candles
    return {
        "type": "bar",
        "x": list(range(len(candles))),
        "y": [each.volume for each in candles],
        "marker": {"color": [RISING if each.close >= each.open else FALLING for each in candles]},
    }


def _markers(series: Series, direction: str) -> dict[str, Any]:
    """One marker for the events of a candle and a direction."""
    events = [event for event in series.events if event.direction == direction]
    grouped = [(place, list(each)) for place, each in groupby(events, lambda event: event.place)]
    candles = [series.candles[place] for place, _ in grouped]
    return {
        "type": "scatter",
        "name": direction,
        "x": [place for place, _ in grouped],
        "y": [each.low if direction == "long" else each.high for each in candles],
        "marker": {"color": MARKERS[direction]},
        "events": len(events),
    }


def _texts(series: Series) -> list[str]:
    """For each candle what one reads when hovering: all of it, and its events."""
    events: dict[int, list[Event]] = defaultdict(list)
    for event in series.events:
        events[event.place].append(event)
    return [
        "<br>".join([*map(html.escape, words.candle_lines(candle)), *_several(events[place])])
        for place, candle in enumerate(series.candles)
    ]


def _several(events: Sequence[Event]) -> list[str]:
    """In the few marks of HTML that plotly reads in a text."""
    lines = [
        f'<span style="color:{MARKERS[event.direction]}">{words.SIGNS[event.direction]}</span>'
        f" {html.escape(', '.join(words.event_lines(event)))}"
        for event in events[:SHOWN_EVENTS]
    ]
    more = len(events) - SHOWN_EVENTS
    return [*lines, f"and {more:,} more"] if more > 0 else lines
