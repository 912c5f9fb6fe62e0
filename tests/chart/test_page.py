"""The page in a real browser that has no network, and the picture: what is drawn is what there is."""

import io
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from PIL import Image

from tests.chart.browser import Page, browser
from tickstock.chart import page as pages
from tickstock.chart.looks import FALLING, MARKERS, RISING
from tickstock.chart.page import page
from tickstock.chart.picture import SIZE, write_picture
from tickstock.chart.series import Candle, Event, Series

NEW_YORK = ZoneInfo("America/New_York")
DRAWN = "element.classList.contains('js-plotly-plot') && document.querySelector('path.box')"
ATTACK = "<script>alert(1)</script>"
IMAGE = "<img src=https://a.example/x onerror=alert(2)>"
LINK = "<a href='javascript:alert(3)'>x</a> &lt;b&gt; {{chart}} $x$"


def candles() -> list[Candle]:
    """The day before Thanksgiving and the half day after it: every tenth candle falls, the others rise."""
    found: list[Candle] = []
    for day, close in ((date(2025, 11, 26), 16), (date(2025, 11, 28), 13)):
        ts = datetime(day.year, day.month, day.day, 9, tzinfo=NEW_YORK)
        while ts.hour < close:
            n = len(found)
            price = 100 + n / 10
            fall = -1 if n % 10 == 9 else 1
            session = "pre" if (ts.hour, ts.minute) < (9, 30) else "regular"
            found.append(
                Candle(
                    ts, price, price + 2, price - 2, price + fall, 1000 + n, price, session, True
                )
            )
            ts += timedelta(minutes=5)
    return found


def series(symbol: str = "AAPL", pattern: str = "Doji") -> Series:
    """Events in the sixth candle from the end, of each direction; and two more in the fifth."""
    shown = candles()
    place = len(shown) - 6
    events = [
        Event(place, pattern, direction, 110.5, 0.25, {"body": 0.01, "note": ATTACK})
        for direction in MARKERS
    ]
    events += [Event(place + 1, pattern, "long", 110.5, 0.5, {})] * 2
    return Series(symbol, "5min", shown, events)


@pytest.fixture(scope="module")
def shown() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def show(shown: Page, made: Series, folder: Path) -> None:
    file = folder / "chart.html"
    file.write_text(page(made), encoding="utf-8")
    shown.said.clear()
    shown.asked.clear()
    shown.open(file, until=DRAWN)
    shown.evaluate("document.fonts.ready.then(() => true)")


def count(shown: Page, selector: str) -> int:
    return int(shown.evaluate(f"document.querySelectorAll({selector!r}).length"))


def colors(png: bytes) -> dict[tuple[int, ...], int]:
    """How many pixels there are of each colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(map(int, color)): int(n) for color, n in zip(found, counts, strict=True)}


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color.removeprefix("#")))


def test_the_browser_draws_every_candle_and_event_without_a_network(
    shown: Page, tmp_path: Path
) -> None:
    made = series()
    show(shown, made, tmp_path)
    assert count(shown, "path.box") == len(made.candles) == 132
    assert count(shown, ".barlayer .point") == len(made.candles), "volume"
    assert count(shown, ".scatterlayer path.point") == 4, (
        "the two long ones of a candle are one sign"
    )
    assert shown.evaluate("document.title") == "AAPL 5min"
    header = shown.evaluate("document.querySelector('header').innerText")
    assert "2025-11-26 09:00 to 2025-11-28 12:55, New York time" in header
    assert [sign in header for sign in ("▲ 3 long", "▼ 1 short", "◆ 1 neutral")] == [True] * 3
    assert shown.asked == [(tmp_path / "chart.html").as_uri()], "nothing else is asked for"
    assert shown.said == []
    pixels = colors(shown.screenshot())
    assert pixels[rgb(RISING)] > 5 * pixels[rgb(FALLING)] > 100, "most rise"
    for color in MARKERS.values():
        assert pixels[rgb(color)] > 20


def test_signs_stand_beside_their_candle(shown: Page, tmp_path: Path) -> None:
    made = series()
    show(shown, made, tmp_path)
    candle = edges(shown, "path.box", made.events[0].place)
    long, _, short, neutral = (edges(shown, ".scatterlayer path.point", n) for n in range(4))
    assert long[0] > candle[1], "below it"
    assert short[1] < candle[0], "above it"
    assert neutral[1] < short[0], "clear of each other"


def edges(shown: Page, selector: str, number: int) -> tuple[float, float]:
    """Top and bottom of an element, from the top of the page."""
    top, bottom = shown.evaluate(
        f"(() => {{ const box = document.querySelectorAll({selector!r})[{number}]"
        ".getBoundingClientRect(); return [box.top, box.bottom]; })()"
    )
    return top, bottom


def test_data_can_not_end_its_element() -> None:
    assert "<" not in pages._json({"text": "</script><!--", "signs": "&\u2028"})


def test_the_night_and_the_holiday_take_no_room(shown: Page, tmp_path: Path) -> None:
    made = series()
    show(shown, made, tmp_path)
    middles = shown.evaluate(
        "[...document.querySelectorAll('path.box')].map(each => each.getBoundingClientRect())"
        ".map(box => box.x + box.width / 2)"
    )
    steps = np.diff(middles)
    assert steps.min() > 1
    assert steps.max() - steps.min() < 0.1, "as far apart at 16:00 as at any time"
    labels = shown.evaluate(
        "[...document.querySelectorAll('.xaxislayer-above text')].map(each => each.textContent)"
    )
    assert labels[0] == "Nov 26"
    assert "Nov 28" in labels
    assert {"10:00", "12:00"} <= set(labels)


def test_a_closer_look_fits_prices_and_times(shown: Page, tmp_path: Path) -> None:
    made = series()
    show(shown, made, tmp_path)
    shown.evaluate("Plotly.relayout(element, {'xaxis.range': [9.5, 19.5]}).then(() => true)")
    shown.wait("element.layout.yaxis.range[1] < 110")
    low, high = shown.evaluate("element.layout.yaxis.range")
    seen = made.candles[10:20]
    assert min(each.low for each in seen) - 1 < low < min(each.low for each in seen)
    assert max(each.high for each in seen) < high < max(each.high for each in seen) + 1
    shown.wait(
        "[...document.querySelectorAll('.xaxislayer-above text')].some(e => e.textContent == '10:05')"
    )
    shown.evaluate("document.querySelector('#legend input').click()")
    shown.wait("document.querySelectorAll('.scatterlayer .trace').length == 2")


def test_names_from_the_database_are_text(shown: Page, tmp_path: Path) -> None:
    made = series(symbol=ATTACK + IMAGE, pattern=IMAGE + LINK)
    shown.evaluate("window.name = ''")
    file = tmp_path / "chart.html"
    assert ATTACK not in (text := page(made))
    assert IMAGE not in text
    show(shown, made, tmp_path)
    assert count(shown, "script") == 3, "our own"
    assert shown.evaluate("document.querySelector('h1').textContent") == f"{ATTACK}{IMAGE} 5min"
    assert shown.evaluate("document.title") == f"{ATTACK}{IMAGE} 5min"
    place = shown.evaluate(
        "(() => { const box = document.querySelectorAll('.scatterlayer path.point')[0]"
        ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    shown.mouse("mouseMoved", *place)
    shown.wait("document.querySelectorAll('.hovertext').length == 1")
    [told] = shown.evaluate(
        "[...document.querySelectorAll('.hovertext')].map(each => each.textContent)"
    )
    assert told.startswith("Fri 2025-11-28 12:30 New York")
    assert f"▲ {IMAGE}{LINK}, long, strength 0.25, at 110.50, body = 0.01, note = {ATTACK}" in told
    assert "▼" in told
    assert "◆" in told
    assert count(shown, "#chart img[src*=example], #chart a[href^=javascript]") == 0
    assert shown.asked == [file.as_uri()]
    assert shown.said == []


@pytest.mark.parametrize("number", [1, 2])
def test_few_candles_of_one_price_can_be_drawn(shown: Page, tmp_path: Path, number: int) -> None:
    ts = datetime(2025, 11, 26, 9, 30, tzinfo=NEW_YORK)
    flat = [
        Candle(ts + n * timedelta(days=1), 10, 10, 10, 10, 0, None, None, False)
        for n in range(number)
    ]
    made = Series("AAPL", "daily", flat, [])
    show(shown, made, tmp_path)
    assert count(shown, "path.box") == number
    assert shown.said == []
    write_picture(made, tmp_path / "chart.png")


def test_most_events_of_a_candle_are_counted() -> None:
    texts = pages._several([Event(0, f"P{n}", "long", 1, 1, {}) for n in range(20)])
    assert len(texts) == pages.SHOWN_EVENTS + 1
    assert texts[-1] == "and 8 more"


def test_the_picture_has_candles_volume_and_events(tmp_path: Path) -> None:
    file = tmp_path / "chart.png"
    # No formula: matplotlib takes the text between two dollar signs for one.
    write_picture(series(symbol="A$x^$"), file)
    pixels = colors(file.read_bytes())
    assert Image.open(file).size == tuple(int(100 * inches) for inches in SIZE)
    assert pixels[rgb(RISING)] > 5 * pixels[rgb(FALLING)] > 100
    for color in MARKERS.values():
        assert pixels[rgb(color)] > 15
    write_picture(Series("AAPL", "5min", candles(), []), file)
    assert not colors(file.read_bytes()).keys() & set(map(rgb, MARKERS.values()))
