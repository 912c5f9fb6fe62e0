"""Which patterns are asked, on which timeframes and with which parameters."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tickstock.patterns.definition import Pattern
from tickstock.patterns.evaluate import Chosen
from tickstock.timeframes import TIMEFRAMES


class Setting(NamedTuple):
    """A row of the table of settings."""

    pattern: str
    timeframe: str | None
    """None: wherever no other row says anything, as far as the pattern applies by default."""
    enabled: bool
    parameters: Mapping[str, float]
    """Those that are not the pattern's defaults."""


class Choice(NamedTuple):
    chosen: dict[str, list[Chosen]]
    """By timeframe; each timeframe is there."""
    problems: list[str]
    """Settings that can't be obeyed, as sentences. These rows are as if they were not there."""


def choose(patterns: Sequence[Pattern], settings: Sequence[Setting]) -> Choice:
    """Apply the settings.

    A pattern without any is asked with its defaults on the timeframes it names. A row for one
    timeframe counts there instead of the row for all, and can enable it where it is not by default.
    """
    known = {each.name: each for each in patterns}
    rows: dict[tuple[str, str | None], Setting] = {}
    problems = []
    for setting in settings:
        try:
            _check(known, setting)
            if (setting.pattern, setting.timeframe) in rows:
                raise ValueError(f"two settings for {_subject(setting)}")
            rows[setting.pattern, setting.timeframe] = setting
        except ValueError as error:
            problems.append(str(error))
    chosen = {
        timeframe: [each for p in patterns if (each := _chosen(p, timeframe, rows)) is not None]
        for timeframe in TIMEFRAMES
    }
    return Choice(chosen, problems)


def _chosen(
    pattern: Pattern, timeframe: str, rows: Mapping[tuple[str, str | None], Setting]
) -> Chosen | None:
    own, general = rows.get((pattern.name, timeframe)), rows.get((pattern.name, None))
    setting = own or general
    if own is None and timeframe not in pattern.timeframes:
        return None
    if setting is not None and not setting.enabled:
        return None
    parameters = pattern.with_defaults(setting.parameters if setting else {})
    return Chosen(pattern, parameters, pattern.candles(parameters, timeframe))


def _check(known: Mapping[str, Pattern], setting: Setting) -> None:
    """ValueError for a setting that can't be obeyed."""
    pattern = known.get(setting.pattern)
    if pattern is None:
        raise ValueError(f"setting of {setting.pattern}: there is no such pattern")
    if setting.timeframe is not None and setting.timeframe not in TIMEFRAMES:
        known_timeframes = ", ".join(TIMEFRAMES)
        raise ValueError(
            f"setting of {_subject(setting)}: no timeframe {setting.timeframe}"
            f" (there are: {known_timeframes})"
        )
    timeframes = [setting.timeframe] if setting.timeframe else pattern.timeframes
    try:
        parameters = pattern.with_defaults(setting.parameters)
        for timeframe in timeframes if setting.enabled else ():
            pattern.candles(parameters, timeframe)
    except ValueError as error:
        raise ValueError(f"setting of {_subject(setting)}: {error}") from None


def _subject(setting: Setting) -> str:
    return f"{setting.pattern} on {setting.timeframe or 'all timeframes'}"
