"""How long an open socket may be silent: a quiet Sunday is fine, a silent 10:30 on a Tuesday is not.

The time that counts is the feed's: that of the last bar, and what has passed since it came. So the
watchdog knows the hour for a delayed feed too, and in a replay, whose time passes faster, it is late at
worst. Only before the first bar must the clock on the wall do, less what the feed is known to be delayed.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

PATIENCE = 120.0
"""Seconds of silence in a regular session after which a new connection is tried."""
LONGEST = 1800.0
"""Seconds: a symbol that trades seldom is silent after a new connection as before it."""
LATE = timedelta(days=1)
"""A bar that is less than this behind a known one is late, or corrected; else another market is played."""


class Watchdog:
    """Patience with a silent feed. `sessions`: opening and close of regular sessions, UTC, in order.

    `patience` is what the first silence may take, in seconds; it doubles, up to `LONGEST` if that is
    more, each time that a new connection is silent as well. `delay`: how far behind the present the feed is.
    """

    def __init__(
        self,
        sessions: Sequence[tuple[datetime, datetime]],
        *,
        patience: float = PATIENCE,
        delay: timedelta = timedelta(),
    ) -> None:
        self._openings = [opening for opening, _ in sessions]
        self._closes = [close for _, close in sessions]
        self._first = self._patience = patience
        self._lock = threading.Lock()
        self._newest: datetime | None = None
        self._feed_time = datetime.now(UTC) - delay
        self._at = time.monotonic()

    def heard(self, feed_time: datetime) -> None:
        """A bar has come; `feed_time` is what the feed's clock says now, unless the bar is a late one."""
        # Were a time to come believed, all that follows would seem late.
        feed_time = min(feed_time, datetime.now(UTC))
        with self._lock:
            self._patience = self._first
            if self._newest is None or not timedelta() < self._newest - feed_time < LATE:
                self._newest = self._feed_time = feed_time
                self._at = time.monotonic()

    def lost(self) -> None:
        """The connection was given up for its silence: the next one may be silent for longer."""
        with self._lock:
            self._patience = max(self._first, min(LONGEST, 2 * self._patience))

    def patience(self) -> float | None:
        """Seconds that the feed may be silent now; None: for ever, since no regular session is on."""
        with self._lock:
            now = self._feed_time + timedelta(seconds=time.monotonic() - self._at)
            return self._patience if self._in_session(now) else None

    def _in_session(self, now: datetime) -> bool:
        last = bisect_right(self._openings, now) - 1
        # Only what is silent in the session counts: before it, a feed may have been so for hours.
        margin = timedelta(seconds=self._first)
        return last >= 0 and self._openings[last] + margin <= now < self._closes[last]
