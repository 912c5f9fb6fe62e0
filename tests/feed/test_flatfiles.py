"""Minute flat files: every spelling that is a bar, every one that is not, and broken files."""

import gzip
import io
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickstock.bars import PAYLOAD_LIMIT, Bar, Block, Refusal
from tickstock.errors import TickstockError
from tickstock.feed import flatfiles
from tickstock.feed.flatfiles import HEADER, open_flat_file, read_bars, read_blocks

FIRST_LINE = ",".join(HEADER)
LINE = "AAPL,4930,200.29,200.5,200.63,200.2,1744792500000000000,129"
BAR = Bar(
    "AAPL",
    datetime(2025, 4, 16, 8, 35, tzinfo=UTC),
    Decimal("200.29"),
    Decimal("200.63"),
    Decimal("200.2"),
    Decimal("200.5"),
    Decimal(4930),
    None,
    129,
)

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_lines(*lines: str, header: str = FIRST_LINE, name: str = "2025-04-16.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return str(path)

    return write_lines


def zipped(path: str, name: str) -> str:
    target = Path(path).with_name(name)
    target.write_bytes(gzip.compress(Path(path).read_bytes()))
    return str(target)


def test_a_line_becomes_a_bar(write: Write) -> None:
    assert list(read_bars(write(LINE))) == [BAR]


def test_gzip_is_told_by_content_not_by_name(write: Write) -> None:
    plain = write(LINE)
    assert list(read_bars(zipped(plain, "day.csv.gz"))) == [BAR]
    assert list(read_bars(zipped(plain, "day.csv"))) == [BAR]
    assert list(read_bars(write(LINE, name="plain.csv.gz"))) == [BAR]


def test_columns_are_found_by_name(write: Write) -> None:
    cells = dict(zip(HEADER, LINE.split(","), strict=True)) | {"otc": "", "day": "2025-04-16"}
    header = sorted(cells)
    line = ",".join(cells[column] for column in header)
    assert list(read_bars(write(line, header=",".join(header)))) == [BAR]


def test_windows_line_ends_a_byte_order_mark_and_quotes_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "exported.csv"
    quoted = ",".join(f'"{cell}"' for cell in LINE.split(","))
    path.write_bytes(f"\ufeff{FIRST_LINE}\r\n{LINE}\r\n\r\n{quoted}".encode())
    assert list(read_bars(str(path))) == [BAR, BAR]


def test_no_transactions_means_not_told(write: Write) -> None:
    (bar,) = read_bars(write(LINE.removesuffix("129") + "0"))
    assert bar == BAR._replace(trades=None)


def test_what_is_impossible_but_spelled_right_is_not_judged_here(write: Write) -> None:
    line = "AAPL,-5,1,1,0.5,2,1744792500000000000,-1"
    (bar,) = read_bars(write(line))
    assert isinstance(bar, Bar)
    assert (bar.volume, bar.high, bar.low, bar.trades) == (-5, Decimal("0.5"), 2, -1)


numbers = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=Decimal(-(10**15)), max_value=Decimal(10**15)
).filter(lambda number: abs(number.adjusted()) < 90 and len(number.as_tuple().digits) <= 30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    prices=st.tuples(numbers, numbers, numbers, numbers, numbers).filter(
        lambda prices: all(len(f"{price:f}".partition(".")[2]) <= 30 for price in prices)
    ),
    minute=st.integers(0, 100_000_000),
    trades=st.integers(0, 10**9),
    symbol=st.from_regex(r"[A-Za-z.\-]{1,10}", fullmatch=True),
)
def test_numbers_come_out_as_they_are_written(
    write: Write, prices: tuple[Decimal, ...], minute: int, trades: int, symbol: str
) -> None:
    spelled = ",".join(format(price, "f") for price in prices)
    (bar,) = read_bars(write(f"{symbol},{spelled},{minute * 60}000000000,{trades}"))
    assert isinstance(bar, Bar), bar
    read = (bar.volume, bar.open, bar.close, bar.high, bar.low)
    assert [str(number) for number in read] == [str(Decimal(p)) for p in spelled.split(",")]
    assert bar.ts.timestamp() == minute * 60
    assert (bar.symbol, bar.trades or 0) == (symbol, trades)


@pytest.mark.parametrize(
    ("line", "defect"),
    [
        ("AAPL,4930,200.29", "3 fields, at least 8 expected"),
        (LINE.replace("AAPL", ""), "ticker '' is not a symbol"),
        (LINE.replace("AAPL", "AA PL"), "ticker 'AA PL' is not a symbol"),
        (LINE.replace("AAPL", "A" * 65), "is not a symbol"),
        (LINE.replace("4930", "NaN"), "volume 'NaN' is not a number"),
        (LINE.replace("200.29", "inf"), "open 'inf' is not a number"),
        (LINE.replace("200.63", "-Infinity"), "high '-Infinity' is not a number"),
        (LINE.replace("200.2,", "1_000,"), "low '1_000' is not a number"),
        (LINE.replace("200.5", ""), "close '' is not a number"),
        (LINE.replace("200.5", "1e999999"), "close '1e999999' is not a number"),
        (LINE.replace("200.5", "\u0661"), "close '\u0661' is not a number"),
        (LINE.replace("129", "12.5"), "transactions '12.5' is not a whole number"),
        (LINE.replace("129", f"{2**63}"), f"transactions {2**63} is out of range"),
        (LINE.replace("1744792500000000000", "2025-04-16"), "window_start '2025-04-16' is not"),
        (LINE.replace("1744792500000000000", "1744792500000"), "not the start of a minute"),
        (LINE.replace("1744792500000000000", "6" + "0" * 28), "beyond the calendar"),
    ],
)
def test_a_malformed_line_is_refused_and_the_rest_is_read(
    write: Write, line: str, defect: str
) -> None:
    before, refusal, after = read_bars(write(LINE, line, LINE))
    assert before == after == BAR
    assert isinstance(refusal, Refusal)
    assert refusal.source == "2025-04-16.csv"
    assert refusal.reason.startswith("line 3: ")
    assert defect in refusal.reason
    assert refusal.payload == line


def test_a_long_line_is_kept_shortened(write: Write) -> None:
    (refusal,) = read_bars(write('"' + "x" * 200_000))
    assert isinstance(refusal, Refusal)
    assert len(refusal.payload) == PAYLOAD_LIMIT
    assert len(refusal.reason) < 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_after_the_header_break_the_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.csv"
    path.write_bytes(f"{FIRST_LINE}\n{LINE}\n".encode() + content + f"\n{LINE}\n".encode())
    items = list(read_bars(str(path)))
    assert items[0] == items[-1] == BAR
    # A lone carriage return at a line's end is part of the line end; all else is accounted for.
    lines = [line for line in content.split(b"\n") if line.rstrip(b"\r")]
    assert len(items) == len(lines) + 2


def bars_of(block: Block) -> list[Bar]:
    """What COPY makes of a block's text."""
    rows = [line.split("\t") for line in block.copy_text.split("\n")[:-1]]
    bars = [
        Bar(
            symbol.replace("\\\\", "\\"),
            datetime.fromisoformat(ts),
            Decimal(open_),
            Decimal(high),
            Decimal(low),
            Decimal(close),
            Decimal(volume),
            trades=None if trades == "\\N" else int(trades),
        )
        for symbol, ts, open_, high, low, close, volume, trades in rows
    ]
    assert block.bars == len(bars)
    assert block.latest == max([row[1] for row in rows], default="")
    return bars


plain = st.sampled_from(
    [
        LINE,
        LINE.replace("AAPL", "BRK.B").replace("129", "0"),
        LINE.replace("1744792500000000000", "1744792560000000000"),
    ]
)
spelled = plain | st.sampled_from(
    [
        LINE.replace("AAPL", "back\\slash"),
        LINE.replace("AAPL", '"A,B"'),
        LINE.replace("200.5", "2e2").replace("4930", "+.5"),
        LINE.replace("129", "007"),
        LINE.replace("1744792500000000000", "-60000000000"),
        LINE + "\r",
        LINE + ",more",
        "",
        "\r",
        LINE.replace("200.5", "NaN"),
        LINE.replace("129", "9" * 20),
        LINE.replace("1744792500000000000", "1744792500000000001"),
        "A\x0b" + LINE,
        "A\x85" + LINE,
        "A\r" + LINE,
        "AAPL,1",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.one_of(st.lists(plain, max_size=20), st.lists(spelled, max_size=20)),
    end=st.sampled_from(["\n", ""]),
    shuffled=st.booleans(),
    size=st.integers(1, 500),
)
def test_blocks_hold_what_the_lines_say(
    tmp_path: Path, lines: list[str], end: str, shuffled: bool, size: int
) -> None:
    path = tmp_path / "day.csv"
    header = (
        "volume,ticker,open,close,high,low,window_start,transactions" if shuffled else FIRST_LINE
    )
    path.write_bytes(("\n".join([header, *lines]) + end).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flatfiles, "_PIECE", 10)
        patch.setattr(flatfiles, "_BLOCK", size)
        blocks = list(read_blocks(str(path)))
    items = list(read_bars(str(path)))
    assert [bar for block in blocks for bar in bars_of(block)] == [
        item for item in items if isinstance(item, Bar)
    ]
    assert [refusal for block in blocks for refusal in block.refusals] == [
        item for item in items if isinstance(item, Refusal)
    ]
    assert all(block.bars or block.refusals for block in blocks)


def test_of_a_broken_gzip_all_blocks_before_the_break_are_given(write: Write) -> None:
    path = zipped(write(*(LINE.replace("4930", str(n)) for n in range(20_000))), "cut.csv.gz")
    Path(path).write_bytes(Path(path).read_bytes()[:-200])
    blocks: deque[Block] = deque()
    with pytest.raises(TickstockError, match="incomplete or damaged"):
        blocks.extend(read_blocks(path))
    assert sum(block.bars for block in blocks) > 10_000


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("", "no single column ticker, volume"),
        (FIRST_LINE.replace("window_start", "time"), "no single column window_start"),
        (FIRST_LINE + ",close", "no single column close"),
        ("x" * 100_000, "no single column"),
        ('ticker,"vol\rume",x\ry', "no single column"),
        ("ticker,conditions,correction,exchange,id,participant_timestamp", "transactions"),
    ],
)
def test_another_file_is_not_taken_for_a_minute_file(
    write: Write, header: str, complaint: str
) -> None:
    path = write(LINE, header=header)
    with pytest.raises(TickstockError) as refusal:
        list(read_bars(path))
    message = refusal.value.message
    assert message.startswith(f"{path}: not the vendor's minute flat file")
    assert complaint in message
    assert f"must name {FIRST_LINE}" in message
    assert "\n" not in message


def test_binary_data_is_not_taken_for_a_minute_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.csv"
    path.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(TickstockError, match="not the vendor's minute flat file"):
        list(read_bars(str(path)))


def test_an_empty_file_is_refused_and_a_header_alone_is_an_empty_day(tmp_path: Path) -> None:
    empty, header = tmp_path / "empty.csv", tmp_path / "header.csv"
    empty.touch()
    header.write_text(FIRST_LINE)
    with pytest.raises(TickstockError, match="not the vendor's minute flat file"):
        list(read_bars(str(empty)))
    assert list(read_bars(str(header))) == []


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TickstockError, match=r"missing\.csv: no such file; check the path"):
        list(read_bars(str(tmp_path / "missing.csv")))
    with pytest.raises(TickstockError, match=f"{tmp_path}: cannot be read"):
        list(read_bars(str(tmp_path)))


@pytest.mark.parametrize("lost", [1, 8, 9, 200])
def test_a_truncated_gzip_is_named_after_its_bars_were_given(write: Write, lost: int) -> None:
    path = zipped(write(*(LINE.replace("4930", str(n)) for n in range(20_000))), "cut.csv.gz")
    Path(path).write_bytes(Path(path).read_bytes()[:-lost])
    items: deque[Bar | Refusal] = deque()
    with pytest.raises(TickstockError, match="incomplete or damaged") as error:
        items.extend(read_bars(path))
    assert error.value.message.startswith(f"{path}: ")
    assert "download it again" in error.value.message
    assert len(items) > 10_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_gzip_never_shows_a_traceback(write: Write, data: st.DataObject) -> None:
    content = bytearray(Path(zipped(write(LINE, LINE), "bad.csv.gz")).read_bytes())
    content[data.draw(st.integers(2, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = Path(write(name="bad.csv"))
    path.write_bytes(content)
    items: deque[Bar | Refusal] = deque()
    with suppress(TickstockError):
        items.extend(read_bars(str(path)))
        assert list(items) == [BAR, BAR], "damage that went unnoticed"


_FROM_STDIN = """
import sys
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import read_bars
try:
    for item in read_bars("-"):
        sys.stdout.write(repr(item) + "\\n")
except TickstockError as error:
    sys.exit(error.message)
"""


def from_stdin(content: bytes) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-c", _FROM_STDIN], input=content, capture_output=True, timeout=60
    )
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )


def test_standard_input_plain_and_gzipped() -> None:
    text = f"{FIRST_LINE}\n{LINE}\nAAPL\n".encode()
    refusal = Refusal("stdin", "line 3: 1 fields, at least 8 expected", "AAPL")
    for content in (text, gzip.compress(text)):
        result = from_stdin(content)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [repr(BAR), repr(refusal)]


def test_standard_input_that_is_no_minute_file_is_named() -> None:
    assert from_stdin(b"").stderr.startswith("stdin: not the vendor's minute flat file")
    cut = gzip.compress(f"{FIRST_LINE}\n{LINE}\n".encode())[:-4]
    assert from_stdin(cut).stderr.startswith("stdin: the gzip data is incomplete")


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(f"{FIRST_LINE}\n{LINE}\n".encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert list(read_bars("-")) == [BAR]
    assert not stream.closed
    assert not stream.buffer.closed


@pytest.mark.parametrize("zip_it", [False, True])
def test_what_was_consumed_adds_up_to_the_file(write: Write, zip_it: bool) -> None:
    path = write(*[LINE] * 20_000)
    path = zipped(path, "day.csv.gz") if zip_it else path
    steps: list[int] = []
    assert sum(1 for _ in read_bars(path, steps.append)) == 20_000
    assert sum(steps) == Path(path).stat().st_size


def test_a_flat_file_is_text_for_others_too(write: Write) -> None:
    with open_flat_file(zipped(write(LINE), "day.csv.gz")) as file:
        assert file.read() == f"{FIRST_LINE}\n{LINE}\n"
