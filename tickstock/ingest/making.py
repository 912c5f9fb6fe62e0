"""The minute bars of a subscription: those that come, and those made of its seconds or trades.

A minute that was seen in part gives no bar; the ledger owes it, and REST tells it. Where a bar that
came and one that was made meet, the one that came counts (see `tickstock.feed.minutes`).
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from tickstock.bars import Bar
from tickstock.feed.frames import Frame
from tickstock.feed.minutes import HORIZON, SecondMinutes, TradeMinutes, regular_hours
from tickstock.feed.protocol import StatusKind, classify
from tickstock.ticks import Trade

Session = tuple[datetime, datetime]
_MINUTES_REMEMBERED = 2 * (HORIZON + 2)
"""Minutes of which it is known whose bars came. Of a bar that leaps in time, one is a waste."""


class Made(NamedTuple):
    """What has become ready since the last time."""

    bars: list[Bar]
    trades: list[Trade]
    """Those that came, where they are to be stored."""
    owed: list[tuple[str, datetime]]
    """Symbols and minutes that something came for too late to count, or broken."""


class Making:
    """Takes what the channels (of AM, A, T; A or T, not both) send, and gives bars.

    `sessions`: opening and close of regular sessions, UTC, in order; without them, the hours decide
    which trades set a price. `keep_trades`: give the trades too.
    """

    def __init__(
        self,
        channels: Collection[str] = ("AM",),
        sessions: Sequence[Session] | None = None,
        *,
        keep_trades: bool = False,
    ) -> None:
        self.made_of = 0
        """Seconds or trades that came."""
        self._waiting = 0
        regular = regular_hours if sessions is None else _regular(sessions)
        self._trades = TradeMinutes(regular=regular) if "T" in channels else None
        self._seconds = SecondMinutes() if "A" in channels else None
        self._minutes = self._trades or self._seconds
        self._came: list[Bar] = []
        self._kept: list[Trade] | None = [] if keep_trades else None
        self._broken: list[tuple[str, datetime]] = []
        self._symbols: frozenset[str] | None = None
        """Those subscribed; None: all, or it is not known."""
        self._new: frozenset[str] | None = frozenset()
        """Those whose subscription is not in force for sure yet; None: all."""
        self._told: dict[datetime, set[str]] | None = {} if "AM" in channels else None
        if self._minutes:
            # What an earlier process has left in the spill file begins in the middle of a minute.
            self._minutes.interrupt()

    @property
    def waiting(self) -> int:
        """Bars, seconds and trades that came since `take`."""
        return self._waiting

    def add(self, frame: Frame) -> None:
        """Take in a frame. Call it for each, in the order of arrival."""
        self._waiting += len(frame.bars) + len(frame.seconds) + len(frame.trades)
        self._came += frame.bars
        self._broken += frame.broken
        if self._trades:
            self._trades.add(frame.trades)
            self.made_of += len(frame.trades)
            if self._kept is not None:
                self._kept += frame.trades
        elif self._seconds:
            self._seconds.add(frame.seconds)
            self.made_of += len(frame.seconds)
        if self._minutes and any(classify(s) is StatusKind.SUBSCRIBED for s in frame.statuses):
            # Asked for is not subscribed: until this moment, something may be missing.
            self._minutes.interrupt(self._new)

    def subscribed(self, symbols: Sequence[str] | None) -> None:
        """A connection's subscription has been sent. None: all symbols."""
        self._symbols = None if symbols is None else frozenset(symbols)
        self._interrupt(self._symbols)

    def changed(self, symbols: Sequence[str] | None) -> None:
        """The symbols of a subscription have been changed, the connection goes on."""
        before, self._symbols = self._symbols, None if symbols is None else frozenset(symbols)
        if before is None or self._symbols is None:
            self._interrupt(None)
        else:
            self._interrupt(before ^ self._symbols)
            if self._minutes:
                # A late event of a minute before is not all of that minute.
                self._minutes.interrupt(self._symbols - before, joined=True)

    def lost(self) -> None:
        """The connection was lost."""
        if self._minutes:
            self._minutes.interrupt()

    def take(self) -> Made:
        """The bars that came, and those of complete minutes that are new or have changed."""
        self._waiting = 0
        bars, self._came = self._came, []
        broken, self._broken = self._broken, []
        owed = [each for each in broken if self._symbols is None or each[0] in self._symbols]
        trades: list[Trade] = []
        if self._kept is not None:
            trades, self._kept = self._kept, []
        if not self._minutes:
            return Made(bars, trades, owed)
        taken = self._minutes.take()
        # What was unsubscribed may have come in part.
        made = [bar for bar in taken.bars if self._symbols is None or bar.symbol in self._symbols]
        if self._told is None:
            return Made(made, trades, owed + taken.owed)
        self._remember(bars)
        bars += [bar for bar in made if bar.symbol not in self._told.get(bar.ts, ())]
        return Made(bars, trades, owed)  # AM tells of late changes itself

    def _interrupt(self, symbols: frozenset[str] | None) -> None:
        self._new = symbols
        if self._minutes:
            self._minutes.interrupt(symbols)

    def _remember(self, bars: Sequence[Bar]) -> None:
        assert self._told is not None
        for bar in bars:
            self._told.setdefault(bar.ts, set()).add(bar.symbol)
        while len(self._told) > _MINUTES_REMEMBERED:
            del self._told[next(iter(self._told))]


def _regular(sessions: Sequence[Session]) -> Callable[[datetime], bool]:
    openings = [opening for opening, _ in sessions]

    def is_regular(ts: datetime) -> bool:
        last = bisect_right(openings, ts) - 1
        return last >= 0 and ts < sessions[last][1]

    return is_regular
