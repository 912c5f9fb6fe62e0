"""A chart as a picture, drawn by matplotlib: no browser, no network, no display."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tickstock.chart import axis, words
from tickstock.chart.looks import FALLING, GRID, LINE, MARKERS, OUTSIDE, RISING, TEXT
from tickstock.chart.series import Candle, Series
from tickstock.errors import ChartLibraryMissingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (12.8, 7.2)
"""Inches, of 100 pixels each."""
SIGNS = {"long": "^", "short": "v", "neutral": "D"}
OFFSETS = {"long": -9, "short": 9, "neutral": 20}
"""Points between a candle and its marker: below the low of a long one, above the high of others."""


def write_picture(series: Series, path: Path) -> None:
    """Write the chart as PNG. OSError where that is not possible.

    Raises ChartLibraryMissingError without the extra `chart`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChartLibraryMissingError(
            "a chart in PNG needs matplotlib: pip install 'tickstock[chart]'"
        ) from error
    figure = Figure(figsize=SIZE, dpi=100, facecolor="white")
    grid = figure.add_gridspec(
        2, 1, height_ratios=[3.4, 1], hspace=0.06, left=0.02, right=0.92, top=0.91, bottom=0.05
    )
    prices = figure.add_subplot(grid[0])
    volumes = figure.add_subplot(grid[1], sharex=prices)
    # A dollar sign in a name is no formula.
    figure.text(
        0.02, 0.945, words.heading(series), size=14, weight="bold", color=TEXT, parse_math=False
    )
    figure.text(
        0.92, 0.945, words.subheading(series), size=9.5, ha="right", color=TEXT, parse_math=False
    )
    _draw_candles(prices, series.candles)
    _draw_events(prices, series)
    _draw_volume(volumes, series.candles)
    _draw_axes(prices, volumes, series.candles)
    with path.open("wb") as file:
        figure.savefig(file, format="png")


def _colors(candles: Sequence[Candle]) -> list[str]:
    return [RISING if each.close >= each.open else FALLING for each in candles]


def _draw_candles(axes: "Axes", candles: Sequence[Candle]) -> None:
    places, colors = range(len(candles)), _colors(candles)
    axes.vlines(
        places,
        [each.low for each in candles],
        [each.high for each in candles],
        colors,
        linewidth=0.9,
    )
    # A candle that closed where it opened is a line, too.
    thin = 0.001 * (max(each.high for each in candles) - min(each.low for each in candles))
    axes.bar(
        places,
        [max(abs(each.close - each.open), thin) for each in candles],
        bottom=[min(each.close, each.open) for each in candles],
        color=colors,
        width=0.66,
    )
    last = candles[-1]
    axes.axhline(last.close, color=LINE, linewidth=0.8, linestyle=":")
    axes.annotate(
        words.price(last.close),
        (1, last.close),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        size=9.5,
        color="white",
        bbox={"facecolor": colors[-1], "edgecolor": "none", "pad": 2},
        zorder=5,
    )


def _draw_events(axes: "Axes", series: Series) -> None:
    for direction, color in MARKERS.items():
        places = sorted({e.place for e in series.events if e.direction == direction})
        if places:
            _mark(axes, series.candles, places, direction, color)


def _mark(
    axes: "Axes", candles: Sequence[Candle], places: Sequence[int], direction: str, color: str
) -> None:
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    beside = ScaledTranslation(0, OFFSETS[direction] / 72, axes.figure.dpi_scale_trans)
    prices = [candles[n].low if direction == "long" else candles[n].high for n in places]
    axes.scatter(
        places,
        prices,
        s=26,
        marker=SIGNS[direction],
        color=color,
        transform=axes.transData + beside,
        label=direction,
        zorder=4,
    )


def _draw_volume(axes: "Axes", candles: Sequence[Candle]) -> None:
    volumes = [each.volume for each in candles]
    axes.bar(range(len(candles)), volumes, color=_colors(candles), width=0.8, alpha=0.55)
    axes.set_ylim(0, 1.05 * max(volumes) or 1)
    axes.yaxis.set_major_formatter(lambda volume, _: words.short(volume))
    axes.locator_params(axis="y", nbins=3)


def _draw_axes(prices: "Axes", volumes: "Axes", candles: Sequence[Candle]) -> None:
    low, high = min(each.low for each in candles), max(each.high for each in candles)
    room = 0.08 * (high - low) or 0.01 * high or 1
    prices.set_ylim(low - room, high + room)
    prices.set_xlim(-1, len(candles))
    ticks = axis.choose(axis.ranked(candles), 13)
    for axes in (prices, volumes):
        axes.set_axisbelow(True)
        axes.grid(color=GRID)
        axes.yaxis.tick_right()
        axes.tick_params(length=0, labelsize=9.5, colors=TEXT)
        axes.spines[:].set_visible(False)
        for first, last in axis.outside_hours(candles):
            axes.axvspan(first - 0.5, last + 0.5, color=OUTSIDE, linewidth=0, zorder=0)
        for day in axis.new_days(candles):
            axes.axvline(day - 0.5, color=LINE, linewidth=0.8, linestyle=":", zorder=0.5)
    prices.tick_params(labelbottom=False)
    prices.yaxis.set_major_formatter(lambda value, _: words.price(value))
    volumes.set_xticks([tick.place for tick in ticks], [tick.label for tick in ticks])
    if prices.get_legend_handles_labels()[0]:
        prices.legend(
            loc="lower left",
            bbox_to_anchor=(0.15, 1),
            ncols=3,
            frameon=False,
            fontsize=9.5,
            labelcolor="linecolor",
        )
