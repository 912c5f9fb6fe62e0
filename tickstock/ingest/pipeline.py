"""`tickstock ingest`: drain the feed, parse, store, forward; fill what the feed left out.

Three threads matter. One drains the socket into the inbox and does nothing else, since the feed cuts off
slow consumers. The second parses; the third stores and counts. While the database writes a batch, the
next one is gathered, and when that is full, the inbox grows.
Beside them: candles are refreshed, stored bars go to Redis, gaps are filled by REST.
"""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import orjson
import psycopg

from tickstock.counted import counted
from tickstock.db.upkeep import UpkeepWorker
from tickstock.db.writer import Counts
from tickstock.errors import DatabaseUnavailableError
from tickstock.feed.client import FeedClient
from tickstock.feed.watchdog import Watchdog
from tickstock.ingest.fill import Filler
from tickstock.ingest.forward import Forwarder
from tickstock.ingest.gathering import Batch, Gatherer
from tickstock.ingest.inbox import MEMORY, Inbox, Item, Kind
from tickstock.ingest.ledger import Behind
from tickstock.ingest.making import Making
from tickstock.ingest.store import Store

log = logging.getLogger(__name__)

MINUTE = timedelta(minutes=1)
REPORT_EVERY = 10.0
"""Seconds between two lines about progress."""


class Listener(Protocol):
    """Who hears of what comes from the feed, in the client's thread."""

    def receive(self, frame: bytes, received_at: datetime) -> None: ...
    def subscribed(self, symbols: Sequence[str]) -> None: ...
    def lost(self, reason: str) -> None: ...
    def patience(self) -> float | None: ...


MakeClient = Callable[[Listener, threading.Event], FeedClient]


class Ingest:
    """One feed into one database. `make_client` gets who listens to it, and the stop event.

    `feed` is the feed's address without secrets, `channels` are those that the client subscribes to,
    and `making` knows them. What waits for the database does so in `memory`
    bytes, and beyond that in the file that `spill` names.
    """

    def __init__(
        self,
        url: str,
        make_client: MakeClient,
        *,
        feed: str,
        spill: Path,
        channels: Sequence[str] = ("AM",),
        making: Making | None = None,
        watchdog: Watchdog | None = None,
        redis_url: str | None = None,
        make_filler: Callable[[threading.Event], Filler] | None = None,
        refresh_every: float = 10.0,
        memory: int = MEMORY,
    ) -> None:
        self.stop = threading.Event()
        self._feed = feed
        self._channels = "+".join(channels)
        self._making = making or Making(channels)
        self._watchdog = watchdog
        self._store = Store(url, self.stop)
        self._inbox = Inbox(spill.parent, spill.name, memory=memory)
        self._gatherer = Gatherer(self._inbox, self._making)
        self._symbols: Sequence[str] = ()
        self._overflowed = False
        self.client = make_client(self, self.stop)
        self._forwarder = Forwarder(redis_url) if redis_url else None
        self._upkeep = UpkeepWorker(url, self.stop, interval=refresh_every)
        self._filler = make_filler(self.stop) if make_filler else None
        self._failure: Exception | None = None
        self._feed_time: datetime | None = None
        self.lag: timedelta | None = None
        """From the end of the newest minute stored last to the receipt of its bars."""

    @property
    def counts(self) -> Counts:
        return self._store.counts

    @property
    def ignored(self) -> int:
        """Well-formed events of kinds that are not stored."""
        return self._gatherer.ignored

    @property
    def feed_time(self) -> datetime | None:
        """Start of the newest minute of what was stored last, UTC."""
        return self._feed_time

    @property
    def inbox(self) -> Inbox:
        return self._inbox

    @property
    def filler(self) -> Filler | None:
        return self._filler

    @property
    def forwarder(self) -> Forwarder | None:
        return self._forwarder

    def run(self) -> None:
        """Run until `stop` is set, then store what has been received, and return.

        Raises FeedRefusedError or FeedUnreachableError when the feed refuses for good, and
        DatabaseUnavailableError or psycopg.Error when received bars could not be stored; in either case
        all that can be stored has been, and the rest waits in the spill file for the next ingest. So it
        does whatever else ends it, such as KeyboardInterrupt.
        """
        _tune_interpreter()
        drain = threading.Thread(target=self._drain, name="drain", daemon=True)
        drain.start()
        self._gatherer.start()
        self._upkeep.start()
        if self._forwarder:
            self._forwarder.start()
        else:
            log.info("no Redis: bars are not forwarded (set TICKSTOCK_REDIS_URL)")
        if self._filler:
            self._filler.start()
        else:
            log.info("no REST API: gaps stay owed (set TICKSTOCK_REST_URL)")
        try:
            self._work(drain)
        except (DatabaseUnavailableError, psycopg.Error) as error:
            self._failure = self._told(error, self._keep(drain))
        except (
            BaseException
        ):  # a second Ctrl-C, which waits for no database, or what nobody has foreseen
            if told := self._keep(drain):
                log.warning("%s", told)
            raise
        finally:
            self.stop.set()
            self._finish()
        if self._failure:
            raise self._failure

    def _keep(self, drain: threading.Thread) -> str | None:
        """What could not be stored goes to the spill file; what became of it, if there was anything."""
        self.stop.set()
        drain.join(timeout=10)
        self._gatherer.stop()
        try:
            if not (path := self._inbox.keep()):
                return None
            return f"What has been received is kept in {path}: the next ingest stores it."
        except OSError as trouble:
            return (
                f"What has been received could not be kept in a file either ({trouble.strerror}): "
                "it has to be filled from REST or a flat file."
            )

    def _told(self, error: DatabaseUnavailableError | psycopg.Error, kept: str | None) -> Exception:
        """The error, and what became of that which could not be stored."""
        if kept and isinstance(error, DatabaseUnavailableError):
            return DatabaseUnavailableError(f"{error.message} {kept}")
        if kept:
            log.error("%s", kept)
        return error

    # What the client tells, in its thread.

    def receive(self, frame: bytes, received_at: datetime) -> None:
        self._put(Item(Kind.FRAME, received_at, frame))

    def subscribed(self, symbols: Sequence[str]) -> None:
        changed, self._symbols = bool(self._symbols), symbols
        self._put(self._subscription(Kind.CHANGED if changed else Kind.OPENED))

    def lost(self, reason: str) -> None:
        self._symbols = ()
        if self._watchdog and reason.startswith("silent"):
            self._watchdog.lost()
        self._put(Item(Kind.LOST, datetime.now(UTC), reason.encode()))

    def patience(self) -> float | None:
        return self._watchdog.patience() if self._watchdog else None

    def _put(self, item: Item) -> None:
        if self._overflowed:
            # The ledger must know that something is missing here, before anything else comes.
            reason = Item(Kind.LOST, item.at, b"neither memory nor disk could take more")
            if not (self._inbox.put(reason) and self._inbox.put(self._subscription(Kind.OPENED))):
                return
        self._overflowed = not self._inbox.put(item)

    def _subscription(self, kind: Kind) -> Item:
        everything = "*" in self._symbols
        data = orjson.dumps(None if everything else list(self._symbols))
        return Item(kind, datetime.now(UTC), data)

    def _drain(self) -> None:
        try:
            self.client.run()
        except Exception as error:  # carried over to the main thread, which reports it
            self._failure = error
        finally:
            self.stop.set()

    # What becomes of it, in the main thread.

    def _work(self, drain: threading.Thread) -> None:
        report_at = time.monotonic() + REPORT_EVERY
        while drain.is_alive() or not self._inbox.done:
            batch = self._gatherer.take(timeout=0.2)
            if any(batch.made) or batch.refusals:
                self._write(batch)
            if batch.told:
                self._note(batch.told)
            self._inbox.stored(batch.items)
            if time.monotonic() >= report_at:
                self._report()
                report_at = time.monotonic() + REPORT_EVERY
        with suppress(DatabaseUnavailableError):  # to the ledger, it is as if we had been killed
            self._store.close_stretch("ingest was stopped", intended=True)

    def _write(self, batch: Batch) -> None:
        made = batch.made
        stored = self._store.write(
            made.bars,
            batch.refusals,
            trades=made.trades,
            owed=made.owed,
            behind=lambda: Behind(
                *self._inbox.behind(batch.items), datetime.now(UTC) - batch.first_at
            ),
        )
        if stored.bars:
            newest = max(bar.ts for bar in stored.bars)
            if self._feed_time is None or newest >= self._feed_time:  # else they are late ones
                self.lag = batch.received_at - newest - MINUTE
            self._feed_time = newest
            if self._watchdog:
                self._watchdog.heard(self._feed_time)
            if self._forwarder:
                self._forwarder.offer(stored.bars, stored.complete)
        for refusal in batch.refusals[:3]:
            log.warning("refused: %s (kept in refused_bars)", refusal.reason)

    def _note(self, told: Item) -> None:
        """The subscription began, was lost, or changed: the ledger keeps it."""
        if told.kind is Kind.LOST:
            self._store.close_stretch(told.data.decode(), intended=False)
            return
        changed = told.kind is Kind.CHANGED
        begin = self._store.change_stretch if changed else self._store.open_stretch
        begin(self._feed, self._channels, orjson.loads(told.data))

    def _report(self) -> None:
        log.info("%s", self.summary())

    def summary(self) -> str:
        """One line: what became of the bars, and what is waiting."""
        c = self.counts
        at = f"{self._feed_time:%Y-%m-%d %H:%M} UTC" if self._feed_time else "no bar yet"
        frames, spilled = self._inbox.behind(0)
        waiting = f"{counted(frames, 'frame')} waiting"
        if spilled:
            waiting += f" and {spilled / 2**20:,.1f} MiB in the spill file"
        if self._inbox.lost:
            waiting += f", {counted(self._inbox.lost, 'frame')} lost"
        if "AM" not in self._channels:
            waiting = f"made of {counted(self._making.made_of, 'event')}; {waiting}"
        return (
            f"{c.received:,} received = {c.inserted:,} new + {c.replaced:,} replaced"
            f" + {c.unchanged:,} unchanged + {c.refused:,} refused; {waiting}; feed at {at}"
        )

    def _finish(self) -> None:
        if self._forwarder:
            self._forwarder.close()
        self._gatherer.stop()
        for thread in (self._gatherer, self._upkeep, self._filler):
            if thread:
                thread.join(timeout=5)
        self._store.close()
        self._inbox.close()
        log.info("%s", self.summary())


def _tune_interpreter() -> None:
    # Bars are in no cycles. To look for such ones among them, often, takes a third of the parsing.
    gc.set_threshold(100_000, 10, 10)
    # While others compute, the thread that drains the socket waits that long after each read.
    sys.setswitchinterval(0.001)
