"""What has come from the feed and is not stored yet: in memory up to a bound, beyond it in a file.

The feed cuts off slow consumers and replays nothing, so what comes is taken at once, however long the
database is away. The file outlives a kill -9: the next ingest of the same feed and database takes what
is in it first. Ingests that run side by side have a file each; what is left of any goes to the next one.
"""

import errno
import logging
import os
import shutil
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, NamedTuple, Self

from tickstock.embedded.locks import FileLock
from tickstock.embedded.paths import is_root, make_folder
from tickstock.errors import TickstockError

log = logging.getLogger(__name__)

MEMORY = 64 * 2**20
"""Bytes that wait in memory at most; what comes then goes to the file."""
OVERHEAD = 200
"""Bytes that an item takes besides its data, about."""

_NEW = ".new"
_HEAD = struct.Struct("<BqI")  # kind, microseconds since the epoch, bytes that follow
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Kind(IntEnum):
    """What an item is."""

    FRAME = 0
    """A message of the feed, as it came."""
    OPENED = 1
    """A subscription has been sent; data: its symbols as JSON, null for all."""
    LOST = 2
    """The connection was lost; data: why."""
    CHANGED = 3
    """The operator changed the symbols, the connection goes on; data: as for OPENED."""


class Item(NamedTuple):
    kind: Kind
    at: datetime
    """When it came, by the clock on the wall, UTC."""
    data: bytes


class Waiting(NamedTuple):
    """What came and is not stored."""

    items: int
    """In memory."""
    spilled: int
    """Bytes in the file."""


class _Taken(NamedTuple):
    item: Item
    in_file: int
    """Bytes that it takes in the file."""


class Inbox:
    """Keeps items in their order, for one thread that puts and one that takes.

    `put` waits for nothing but a write to the file. What was taken out of the file stays in it until
    it is `stored`, so a process that is killed loses of it nothing. `memory` is in bytes.
    """

    def __init__(self, folder: Path, name: str, *, memory: int = MEMORY) -> None:
        self.lost = 0
        """Items that neither memory nor the file could take."""
        self._limit = memory
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._unstored: deque[_Taken] = deque()
        self._changed = threading.Condition()
        self._path, self._file, self._lock = _open_file(folder, name)
        self._stored_at = self._read_at = 0
        self._write_at = _whole_records(self._path, self._file)
        # What is left of a broken record would be taken for one behind the next that is written.
        self._file.truncate(self._write_at)

    @property
    def waiting(self) -> int:
        """Items in memory."""
        return len(self._items)

    @property
    def spilled(self) -> int:
        """Bytes in the file that are not stored."""
        return self._write_at - self._stored_at

    @property
    def empty(self) -> bool:
        return not self._items and not self._unread

    @property
    def done(self) -> bool:
        """Whether nothing waits, and all that was taken is stored."""
        with self._changed:
            return self.empty and not self._unstored

    def put(self, item: Item) -> bool:
        """Whether it could be taken in: False when memory and disk are full."""
        with self._changed:
            # What comes after something in the file must not overtake it.
            if self._unread or self._bytes >= self._limit:
                if not self._spill(item):
                    return False
            else:
                self._items.append(item)
                self._bytes += len(item.data) + OVERHEAD
            self._changed.notify()
            return True

    def take(self, timeout: float) -> Item | None:
        """The oldest item; None if there is none within so many seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.empty, timeout):
                return None
            before = self._read_at
            if self._items:
                item = self._items.popleft()
                self._bytes -= len(item.data) + OVERHEAD
            else:
                item = self._unspill()
            self._unstored.append(_Taken(item, self._read_at - before))
            return item

    def stored(self, number: int) -> None:
        """So many more of those that were taken are stored: the file can forget them."""
        with self._changed:
            for _ in range(number):
                self._stored_at += self._unstored.popleft().in_file
            if self._write_at and not self.spilled:
                self._file.truncate(0)
                self._stored_at = self._read_at = self._write_at = 0
                log.info("all that waited in %s is stored", self._path)

    def behind(self, number: int) -> Waiting:
        """What waits behind so many of those that were taken, which are being stored."""
        with self._changed:
            items = len(self._unstored) - number + len(self._items)
            taken = islice(self._unstored, number) if self._write_at else ()
            stored = sum(each.in_file for each in taken)
            return Waiting(items, self.spilled - stored)

    def keep(self) -> Path | None:
        """All that is not stored goes to the file, which is returned; None where there is nothing.

        Raises OSError where the disk is full: what is in the file already stays there.
        """
        with self._changed:
            if self.empty and not self._unstored:
                return None
            # Another file takes this one's place when it is whole: a kill or a full disk costs nothing of it.
            with _replacing(self._path) as file:
                # What waits in memory came before what waits in the file.
                for item in chain((taken.item for taken in self._unstored), self._items):
                    file.write(_record(item))
                self._file.truncate(self._write_at)
                self._file.seek(self._read_at)
                shutil.copyfileobj(self._file, file)
                size = file.tell()
            self._file.close()
            self._file = _open(self._path)
            self._write_at, self._stored_at, self._read_at = size, 0, 0
            self._items.clear()
            self._unstored.clear()
            return self._path

    def close(self) -> None:
        """Leave the file to the next one; remove it if nothing is in it."""
        with self._changed:
            if not self._write_at:
                self._path.unlink()
            self._file.close()
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _unread(self) -> int:
        """Bytes of the file that were not taken."""
        return self._write_at - self._read_at

    def _spill(self, item: Item) -> bool:
        if not self._write_at:
            log.warning("more waits than %d MiB: it is kept in %s", self._limit >> 20, self._path)
        record = _record(item)
        try:
            self._file.seek(self._write_at)
            if self._file.write(record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._write_at)
            if not self.lost:
                log.error("%s can't be written, bars are lost: %s", self._path, error.strerror)
            self.lost += 1
            return False
        self._write_at += len(record)
        return True

    def _unspill(self) -> Item:
        self._file.seek(self._read_at)
        kind, micros, size = _HEAD.unpack(self._file.read(_HEAD.size))
        item = Item(Kind(kind), _EPOCH + micros * _MICROSECOND, self._file.read(size))
        self._read_at = self._file.tell()
        return item


def _open_file(folder: Path, name: str) -> tuple[Path, IO[bytes], FileLock]:
    """The first file of this name that no other process uses, made where there is none.

    Raises TickstockError where there can be none.
    """
    try:
        # Below the folder of the embedded server's data, whose account must be able to pass through.
        make_folder(folder.parent, 0o755 if is_root() else 0o700)
        folder.mkdir(exist_ok=True)
        for number in count(1):
            path = folder / f"{name}-{number}.frames"
            lock = FileLock(path.with_suffix(".lock"))
            if lock.try_exclude():
                path.with_suffix(_NEW).unlink(missing_ok=True)
                _take_over(path, set(folder.glob(f"{name}-*.frames")) - {path})
                return path, _open(path), lock
            lock.close()
    except OSError as error:
        raise TickstockError(
            f"the spill folder {folder} can't be used: {error.strerror}. Let this user write there, or "
            "set TICKSTOCK_DATA_DIR"
        ) from error
    raise AssertionError("there is always another number")


def _take_over(path: Path, others: Iterable[Path]) -> None:
    """Put into this file what is in those that nobody uses: whoever left them may never come back."""
    with ExitStack() as stack:
        left = [each for each in others if _is_left(each, stack)]
        if not left:
            return
        with _replacing(path) as file:
            # A bar that came again must be stored last.
            for each in sorted(filter(Path.exists, (path, *left)), key=lambda p: p.stat().st_mtime):
                with each.open("rb") as before:
                    size = _whole_records(each, before)
                    before.seek(0)
                    _copy(before, file, size)
                file.write(_record(Item(Kind.LOST, datetime.now(UTC), b"ingest was killed")))
        for each in left:
            each.unlink()


def _is_left(path: Path, stack: ExitStack) -> bool:
    """Whether no other process uses it, nor will until the stack is closed."""
    return stack.enter_context(FileLock(path.with_suffix(".lock"))).try_exclude()


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while piece := source.read(min(size, 2**20)):
        target.write(piece)
        size -= len(piece)


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of this one at the end of the block, unless the block fails."""
    new = path.with_suffix(_NEW)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _record(item: Item) -> bytes:
    micros = (item.at - _EPOCH) // _MICROSECOND
    return _HEAD.pack(item.kind, micros, len(item.data)) + item.data


def _whole_records(path: Path, file: IO[bytes]) -> int:
    """Where the last whole record ends: who is killed while it writes leaves a broken one."""
    size = file.seek(0, os.SEEK_END)
    end = 0
    while end + _HEAD.size <= size:
        file.seek(end)
        *_, length = _HEAD.unpack(file.read(_HEAD.size))
        if end + _HEAD.size + length > size:
            break
        end += _HEAD.size + length
    if end:
        log.warning("%s holds what an earlier ingest could not store: it is stored first", path)
    return end
