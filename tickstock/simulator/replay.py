"""A market that plays the vendor's minute flat files."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from tickstock.bars import Bar
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import read_bars
from tickstock.simulator.events import plain
from tickstock.simulator.market import MINUTE, NEW_YORK, Minute

_log = logging.getLogger(__name__)


class ReplayMarket:
    """Plays flat files in the order of time, each bar in the minute it was made.

    From the first bar of a New York day to its last, the market clock goes through every minute,
    also those without a bar; the hours between two days are left out. Files whose times overlap
    are played together. One file, or one such group, is held in memory at a time.

    Numbers are those that JSON will carry: integers where whole, else floats. The files have no
    vwap, so the bars have none. Lines that are no bars are logged and left out.

    Files are read once when the market is made and once when played, so standard input (`-`) is
    not possible. Raises TickstockError for a file that `read_bars` refuses, and for no bars.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        if "-" in paths:
            raise TickstockError("-: a replay cannot read standard input; save it to a file first")
        scans = [scan for path in paths if (scan := _scan(path))]
        if not scans:
            raise TickstockError(
                f"{', '.join(paths) or 'no file'}: nothing to replay; give flat files with bars"
            )
        self._groups = _overlapping(sorted(scans, key=lambda scan: scan.first))
        self._symbols = tuple(sorted(set().union(*(scan.symbols for scan in scans))))

    @property
    def symbols(self) -> Sequence[str]:
        """Every symbol in the files, sorted."""
        return self._symbols

    def minutes(self) -> Iterator[Minute]:
        """The minutes of all files, `ts` ascending; every call plays from the beginning."""
        last: datetime | None = None
        for paths in self._groups:
            for minute in _minutes_of(paths):
                if last:
                    yield from _silent_minutes(last, minute.ts)
                yield minute
                last = minute.ts


class _Scan(NamedTuple):
    """What the first reading of a file tells."""

    path: str
    first: datetime
    last: datetime
    symbols: frozenset[str]


def _scan(path: str) -> _Scan | None:
    times: set[datetime] = set()
    symbols: set[str] = set()
    refused = 0
    for item in read_bars(path):
        if isinstance(item, Bar):
            times.add(item.ts)
            symbols.add(item.symbol)
        else:
            refused += 1
            _log.debug("%s: %s", path, item.reason)
    if refused:
        _log.warning("%s: %d lines are no bars and are left out", path, refused)
    return _Scan(path, min(times), max(times), frozenset(symbols)) if times else None


def _overlapping(scans: Sequence[_Scan]) -> list[list[str]]:
    """The paths of scans sorted by their first bar, in groups that share no minute."""
    groups: list[list[str]] = []
    end: datetime | None = None
    for scan in scans:
        if end is None or scan.first > end:
            groups.append([])
        groups[-1].append(scan.path)
        end = max(end or scan.last, scan.last)
    return groups


def _minutes_of(paths: Sequence[str]) -> Iterator[Minute]:
    minutes: defaultdict[datetime, list[Bar]] = defaultdict(list)
    for path in paths:
        for item in read_bars(path):
            if isinstance(item, Bar):
                minutes[item.ts].append(_small(item))
    for ts in sorted(minutes):
        yield Minute(ts, minutes.pop(ts))


def _silent_minutes(after: datetime, before: datetime) -> Iterator[Minute]:
    """The minutes without a bar between two of the same New York day."""
    if after.astimezone(NEW_YORK).date() != before.astimezone(NEW_YORK).date():
        return
    ts = after + MINUTE
    while ts < before:
        yield Minute(ts, [])
        ts += MINUTE


def _small(bar: Bar) -> Bar:
    """A day of the whole market is millions of bars: Decimals take four times the memory."""
    return bar._replace(
        open=plain(bar.open),
        high=plain(bar.high),
        low=plain(bar.low),
        close=plain(bar.close),
        volume=plain(bar.volume),
    )
