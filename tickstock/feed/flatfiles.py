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
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import BinaryIO, TextIO

from tickstock.bars import PAYLOAD_LIMIT, Bar, Block, Refusal
from tickstock.errors import TickstockError
from tickstock.feed.frames import SYMBOL_LIMIT

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

# What the vendor writes, and all of it: no quotes, signs or exponents. Whatever else is a bar, and
# what is none, is told line by line.
_PLAIN_COLUMNS = tuple(range(len(HEADER)))
_PLAIN_NUMBER = r"([0-9]{1,30}+(?:\.[0-9]{1,30}+)?+)"
_PLAIN_LINE = re.compile(
    rf"^([!#-+\--\[\]-~]{{1,{SYMBOL_LIMIT}}}+),"
    + rf"{_PLAIN_NUMBER}," * 5
    + r"([0-9]{1,19}+),(0|[1-9][0-9]{0,17}+)\r?+\n",
    re.MULTILINE,
)
_PIECE = 8_192
_BLOCK = 1 << 20
_NULL = r"\N"


def read_blocks(path: str, consumed: Consumed | None = None) -> Iterator[Block]:
    """The same as `read_bars`, many lines at a time and many times faster; never an empty block."""
    with _lines_of(path, consumed) as (file, line_parser):
        for lines in _stretches(file):
            if block := line_parser.parse_block(lines):
                yield block


def _stretches(file: TextIO) -> Iterator[str]:
    """The text in large pieces that end with a line."""
    text = ""
    try:
        while piece := file.read(_PIECE):
            text += piece
            if len(text) >= _BLOCK and "\n" in piece:
                lines, newline, text = text.rpartition("\n")
                yield lines + newline
    except Exception:
        yield text[: text.rfind("\n") + 1]  # what came before the break
        raise
    yield text if text.endswith("\n") else text + "\n"


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
    with _lines_of(path, consumed) as (file, line_parser):
        for line in file:
            if item := line_parser.parse(line):
                yield item


@contextmanager
def _lines_of(path: str, consumed: Consumed | None) -> Iterator[tuple[TextIO, "_LineParser"]]:
    """A minute flat file after its first line, and who understands the others."""
    name = _name(path)
    try:
        with open_flat_file(path, consumed) as file:
            yield file, _LineParser(name, _columns(file, name))
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
    try:
        cells = _cells(file.readline(_LONGEST_HEADER).rstrip("\r\n"))
    except ValueError:  # quotes in what is no CSV
        cells = []
    found = [cell.strip() for cell in cells]
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
    """Turns the lines of one file, in their order, into bars."""

    def __init__(self, name: str, columns: tuple[int, ...]) -> None:
        self._source = Path(name).name
        self._columns = columns
        self._least_cells = max(columns) + 1
        # A file has some hundred minutes and millions of lines.
        self._minute = cache(_minute)
        self._iso = cache(lambda start: _minute(start).isoformat())
        self._lines = 1

    def parse(self, line: str) -> Bar | Refusal | None:
        """The next line; None where it is empty."""
        self._lines += 1
        text = line.rstrip("\r\n")
        if not text:
            return None
        try:
            return self._bar(text)
        except ValueError as defect:
            reason = f"line {self._lines}: {defect}"
            return Refusal(self._source, reason, text[:PAYLOAD_LIMIT])

    def parse_block(self, lines: str) -> Block | None:
        """The next lines, each with its line end; None where all are empty."""
        number = lines.count("\n")
        if self._columns == _PLAIN_COLUMNS:
            plain = _PLAIN_LINE.findall(lines)
            if plain and len(plain) == number:
                with suppress(ValueError):  # a minute that is none: see which line
                    block = self._plain_block(plain)
                    self._lines += number
                    return block
        return self._block_line_by_line(lines)

    def _plain_block(self, rows: list[tuple[str, ...]]) -> Block:
        iso = self._iso
        text = "".join(
            [
                f"{ticker}\t{iso(start)}\t{open_}\t{high}\t{low}\t{close}\t{volume}\t"
                f"{trades if trades != '0' else _NULL}\n"
                for ticker, volume, open_, close, high, low, start, trades in rows
            ]
        )
        latest = max(map(iso, {row[6] for row in rows}))
        return Block(text, len(rows), latest, [])

    def _block_line_by_line(self, lines: str) -> Block | None:
        # Not splitlines(): it knows more line ends than files have.
        items = [item for line in lines[:-1].split("\n") if (item := self.parse(line))]
        bars = [item for item in items if isinstance(item, Bar)]
        refusals = [item for item in items if isinstance(item, Refusal)]
        latest = max([bar.ts.isoformat() for bar in bars], default="")
        return Block("".join(map(_copy_line, bars)), len(bars), latest, refusals) if items else None

    def _bar(self, line: str) -> Bar:
        cells = _cells(line)
        if len(cells) < self._least_cells:
            raise ValueError(f"{len(cells)} fields, at least {self._least_cells} expected")
        ticker, volume, open_, close, high, low, start, trades = (cells[c] for c in self._columns)
        if not _TICKER.fullmatch(ticker):
            raise ValueError(f"ticker {ticker[:20]!r} is not a symbol")
        return Bar(
            ticker,
            self._minute(start),
            _number("open", open_),
            _number("high", high),
            _number("low", low),
            _number("close", close),
            _number("volume", volume),
            vwap=None,
            trades=_trades(trades),
        )


def _minute(text: str) -> datetime:
    minutes, rest = divmod(_integer("window_start", text), _NANOSECONDS_A_MINUTE)
    if rest:
        raise ValueError(f"window_start {text} is not the start of a minute, in nanoseconds")
    try:
        return _EPOCH + timedelta(minutes=minutes)
    except OverflowError:
        raise ValueError(f"window_start {text} lies beyond the calendar") from None


def _trades(text: str) -> int | None:
    number = _integer("transactions", text)
    if abs(number) >= 1 << 63:
        raise ValueError(f"transactions {text} is out of range")
    return number or None


def _copy_line(bar: Bar) -> str:
    symbol = bar.symbol.replace("\\", "\\\\")
    trades = _NULL if bar.trades is None else bar.trades
    prices = f"{bar.open}\t{bar.high}\t{bar.low}\t{bar.close}\t{bar.volume}"
    return f"{symbol}\t{bar.ts.isoformat()}\t{prices}\t{trades}\n"


def _number(column: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{column} {text[:40]!r} is not a number")
    return Decimal(text)


def _integer(column: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{column} {text[:40]!r} is not a whole number")
    return int(text)
