"""Batches of what the feed sent: one is parsed while the database writes the one before."""

import threading
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from tickstock.bars import Refusal
from tickstock.feed.frames import parse_frame
from tickstock.ingest.inbox import Inbox, Item, Kind
from tickstock.ingest.making import Made, Making

BATCH = 50_000
"""Bars, seconds and trades that are taken in at once, about."""


class Batch(NamedTuple):
    """What had arrived when it was asked for, up to `BATCH`, or to what tells of the connection."""

    made: Made
    refusals: list[Refusal]
    told: Item | None
    """What tells of the connection, and came after the rest."""
    received_at: datetime
    """When the last of it came that has bars, seconds or trades; UTC."""
    first_at: datetime
    """When the first of it came that has such."""
    items: int
    """How many items of the inbox it is made of."""


class Gatherer(threading.Thread):
    """Parses what comes into the inbox, as long as there is room in the batch."""

    def __init__(self, inbox: Inbox, making: Making) -> None:
        super().__init__(name="gather", daemon=True)
        self.ignored = 0
        """Well-formed events of kinds that are not stored."""
        self._inbox = inbox
        self._making = making
        self._refusals: list[Refusal] = []
        self._told: Item | None = None
        self._received_at = datetime.now(UTC)
        self._first_at: datetime | None = None
        self._items = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                item = self._inbox.take(0.2)
                if item is not None:
                    self._add(item)
        except Exception as error:  # carried over to the one who takes
            with self._changed:
                self._failure = error
                self._changed.notify()

    def take(self, timeout: float) -> Batch:
        """What has been gathered since the last time; with no items if nothing came for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._failure, timeout)
            if self._failure:
                raise self._failure
            made = self._making.take()
            first_at = self._first_at or self._received_at
            batch = Batch(
                made, self._refusals, self._told, self._received_at, first_at, self._items
            )
            if self._told:
                self._tell_making(self._told)
            self._refusals, self._told, self._first_at, self._items = [], None, None, 0
            self._changed.notify()
            return batch

    def stop(self) -> None:
        """End, within a moment; what was not taken stays in the inbox as not stored."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def _add(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._stopping.is_set())
            if item.kind is not Kind.FRAME:
                self._told = item
            else:
                frame = parse_frame(item.data, item.at)
                self._making.add(frame)
                self._refusals += frame.refusals
                self.ignored += frame.ignored
                if frame.bars or frame.seconds or frame.trades:
                    self._received_at = item.at
                    self._first_at = self._first_at or item.at
            self._items += 1
            self._changed.notify()

    def _has_room(self) -> bool:
        # Frames without any of these count, too: a batch holds on to its items until it is stored.
        gathered = max(self._making.waiting + len(self._refusals), self._items)
        return self._told is None and gathered < BATCH

    def _tell_making(self, told: Item) -> None:
        if told.kind is Kind.LOST:
            self._making.lost()
        elif told.kind is Kind.CHANGED:
            self._making.changed(orjson.loads(told.data))
        else:
            self._making.subscribed(orjson.loads(told.data))
