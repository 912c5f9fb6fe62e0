"""A file for windows that are seldom wanted, so that they take no memory of the scanner."""

import logging
import os
import tempfile
from typing import IO

import numpy as np

from tickstock.patterns import Floats
from tickstock.timeframes import TIMEFRAMES

log = logging.getLogger(__name__)

SPACING = 2**32
"""Bytes from place to place. The file has holes between them, which take nothing of the disk."""


class ShelfError(Exception):
    """There is no room, or what was put there can't be had."""


class Shelf:
    """A file without a name, which is gone with the process. Threads may share it, each with its places.

    `usable` until something goes wrong, which is reported once.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        try:
            self._file = tempfile.TemporaryFile(prefix="tickstock-windows-")  # noqa: SIM115 - kept
        except OSError as error:
            self.give_up(ShelfError(str(error)))

    @property
    def usable(self) -> bool:
        return self._file is not None

    @staticmethod
    def place(share: int, timeframe: str) -> int:
        """Of the windows of this share and timeframe."""
        return (share * len(TIMEFRAMES) + TIMEFRAMES.index(timeframe)) * SPACING

    def put(self, place: int, columns: Floats) -> None:
        """In place of what was there."""
        left = columns.reshape(-1).view(np.uint8).data
        try:
            while left:
                written = os.pwrite(self._descriptor(), left, place)
                left, place = left[written:], place + written
        except OSError as error:
            raise ShelfError(str(error)) from None

    def take(self, place: int, shape: tuple[int, ...]) -> Floats:
        """What was put there, of this shape."""
        columns = np.empty(shape)
        left = columns.reshape(-1).view(np.uint8).data
        try:
            while left:
                read = os.preadv(self._descriptor(), [left], place)
                if not read:
                    raise ShelfError("the file is shorter than what was written to it")
                left, place = left[read:], place + read
        except OSError as error:
            raise ShelfError(str(error)) from None
        return columns

    def give_up(self, error: ShelfError) -> None:
        self._file = None  # not closed, for another thread may be at it
        log.warning(
            "windows of 15 minutes and longer are read anew each time, which takes long with thousands of "
            "symbols: no temporary file for them (%s). Name a folder with room in TMPDIR",
            error,
        )

    def _descriptor(self) -> int:
        file = self._file
        if file is None:
            raise ShelfError("another thread has given it up")
        return file.fileno()
