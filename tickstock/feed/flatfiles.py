"""The vendor's minute flat files: one CSV a day, plain or gzipped, read as bars.

`us_stocks_sip/minute_aggs_v1/YYYY/MM/YYYY-MM-DD.csv.gz`; prices are unadjusted, `window_start` is
the bar's start in nanoseconds UTC, `volume` may be fractional.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, TextIO

from tickstock.bars import PAYLOAD_LIMIT, Bar, Refusal
from tickstock.errors import TickstockError
from tickstock.feed.protocol import SYMBOL_LIMIT

HEADER = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")

Consumed = Callable[[int], object]
"""Told how many bytes of the file, as it lies on disk, were read since the last call."""

_STDIN = "-"
_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_HEADER = 4_096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS_A_MINUTE = 60_000_000_000

_TICKER = re.compile(rf"[!-~]{{1,{SYMBOL_LIMIT}}}")
# Bounded, so that no exponent can make a number that no database column holds.
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")


def read_bars(path: str, consumed: Consumed | None = None) -> Iterator[Bar | Refusal]:
    """Every line of a minute flat file as a bar, or as the reason why it is none.

    `path`: `.csv`, `.csv.gz` (told apart by content, not by name), or `-` for standard input.
    Columns are found by name, in any order; further columns are ignored. Numbers are the Decimals
    that the file spells. `vwap` is None: these files have none. `trades` is `transactions`, and
    None where that is 0: the vendor has no bar without a trade, so 0 means "not told".

    Only spelling is judged here (a missing field, `NaN`, a window that is no whole minute).
    Whether a bar can be true (high below low, negative volume) is the database's decision.

    `consumed` is for a progress bar. Raises TickstockError when the file cannot be opened, is not
    the vendor's minute file, or is a broken gzip; the bars before the break have been given by
    then.
    """
    name = _name(path)
    try:
        with open_flat_file(path, consumed) as file:
            line_parser = _LineParser(name, _columns(file, name))
            for number, line in enumerate(file, start=2):
                text = line.rstrip("\r\n")
                if text:
                    yield line_parser.parse(number, text)
    except OSError as error:
        raise TickstockError(
            f"{name}: reading failed ({error.strerror or error}); check the disk and try again"
        ) from error


@contextmanager
def open_flat_file(path: str, consumed: Consumed | None = None) -> Iterator[TextIO]:
    """A flat file's text, unzipped if it is gzip; `-` is standard input, which stays open.

    Raises TickstockError naming the file when it cannot be opened, and, while its text is read,
    when the gzip stream is broken or ends too early.
    """
    name = _name(path)
    with _open_bytes(path, consumed) as raw:
        # A pipe may hand over a single byte first; no CSV header begins with gzip's.
        zipped = _GZIP_MAGIC.startswith(raw.peek(2)[:2] or b"plain")
        stream: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=raw) if zipped else raw
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="\n")
        try:
            yield text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TickstockError(
                f"{name}: the gzip data is incomplete or damaged ({error}); download it again"
            ) from error


class _CountingReader(io.RawIOBase):
    """Reads a binary file and tells how much was read from it."""

    def __init__(self, file: BinaryIO, consumed: Consumed) -> None:
        self._file = file
        self._consumed = consumed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        # One read of what is there: a pipe must not make us wait for a full buffer.
        read_some = getattr(self._file, "read1", self._file.read)
        data: bytes = read_some(len(buffer))
        buffer[: len(data)] = data
        if data:
            self._consumed(len(data))
        return len(data)


@contextmanager
def _open_bytes(path: str, consumed: Consumed | None) -> Iterator[io.BufferedReader]:
    report = consumed or (lambda _bytes: None)
    with nullcontext(sys.stdin.buffer) if path == _STDIN else _open_file(path) as file:
        buffered: io.BufferedReader = io.BufferedReader(_CountingReader(file, report))
        yield buffered


def _open_file(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise TickstockError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise TickstockError(
            f"{path}: cannot be read ({error.strerror}); give a .csv or .csv.gz file"
        ) from error


def _name(path: str) -> str:
    return "stdin" if path == _STDIN else path


def _columns(file: TextIO, name: str) -> tuple[int, ...]:
    """Where the columns of HEADER stand in this file."""
    found = [cell.strip() for cell in _cells(file.readline(_LONGEST_HEADER).rstrip("\r\n"))]
    missing = [column for column in HEADER if found.count(column) != 1]
    if missing:
        raise TickstockError(
            f"{name}: not the vendor's minute flat file (no single column {', '.join(missing)}); "
            f"its first line must name {','.join(HEADER)}"
        )
    return tuple(found.index(column) for column in HEADER)


def _cells(line: str) -> list[str]:
    """The vendor quotes nothing; a spreadsheet that rewrote the file may have."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(str(error)) from error


class _LineParser:
    """Turns the lines of one file into bars."""

    def __init__(self, name: str, columns: tuple[int, ...]) -> None:
        self._source = Path(name).name
        self._columns = columns
        self._least_cells = max(columns) + 1
        self._minutes: dict[str, datetime] = {}

    def parse(self, number: int, line: str) -> Bar | Refusal:
        try:
            return self._bar(line)
        except ValueError as defect:
            reason = f"line {number}: {defect}"
            return Refusal(self._source, reason, line[:PAYLOAD_LIMIT])

    def _bar(self, line: str) -> Bar:
        cells = _cells(line)
        if len(cells) < self._least_cells:
            raise ValueError(f"{len(cells)} fields, at least {self._least_cells} expected")
        ticker, volume, open_, close, high, low, start, trades = (cells[c] for c in self._columns)
        if not _TICKER.fullmatch(ticker):
            raise ValueError(f"ticker {ticker[:20]!r} is not a symbol")
        return Bar(
            ticker,
            self._minutes.get(start) or self._minute(start),
            _number("open", open_),
            _number("high", high),
            _number("low", low),
            _number("close", close),
            _number("volume", volume),
            vwap=None,
            trades=_integer("transactions", trades) or None,
        )

    def _minute(self, text: str) -> datetime:
        nanoseconds = _integer("window_start", text)
        minutes, rest = divmod(nanoseconds, _NANOSECONDS_A_MINUTE)
        if rest:
            raise ValueError(f"window_start {text} is not the start of a minute, in nanoseconds")
        try:
            minute = _EPOCH + timedelta(minutes=minutes)
        except OverflowError:
            raise ValueError(f"window_start {text} lies beyond the calendar") from None
        # A file has some hundred minutes and millions of lines.
        self._minutes[text] = minute
        return minute


def _number(column: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{column} {text[:40]!r} is not a number")
    return Decimal(text)


def _integer(column: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{column} {text[:40]!r} is not a whole number")
    return int(text)
