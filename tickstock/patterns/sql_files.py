"""Patterns in SQL: a comment block that declares the pattern, then one select.

    -- GapUp: one line that sums it up.
    -- More sentences, the formula.
    -- candles: 2
    -- timeframes: daily
    -- parameters: min_gap = 0.02
    -- source: …
    select … from candles c join candles p on …, parameters where c.back = 0 and …

`candles` is required (a number, or the name of a parameter); without `timeframes` it is for all. The
select reads two relations:

- `candles`: for each judged candle the last so many candles of its symbol. symbol text, ts timestamptz,
  judged timestamptz (ts of the judged candle), back integer (0: the judged candle, 1: the one before
  …), open, high, low, close, volume numeric, session text;
- `parameters`: one row, one numeric column per parameter;

and returns symbol, judged, direction ('long', 'short', 'neutral'), strength (float8, 0 to 1), details
(jsonb).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tickstock.patterns.definition import (
    Length,
    Parameters,
    SqlPattern,
    check_timeframes,
    constant,
)
from tickstock.timeframes import TIMEFRAMES

FIELDS = ("candles", "timeframes", "parameters", "source")
NAME = re.compile(r"[A-Za-z]\w*")
FIELD = re.compile(rf"({'|'.join(FIELDS)})\s*:\s*(.*)")
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
BEFORE = re.compile(rf"(?:\s|{COMMENT.pattern})*", re.DOTALL)
"""What may come between the header and the query."""
END = re.compile(r";\s*(--.*)?\Z")
"""A semicolon, and what is said after it on the last line."""
PARAMETER = re.compile(r"([a-z]\w*)\s*=\s*(\S+)")


class SqlFileError(ValueError):
    """What is wrong with a pattern file, with file and line."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}, line {line}: {problem}")


def read_pattern(path: Path) -> SqlPattern:
    """The pattern of a file. SqlFileError if it declares none; OSError if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SqlFileError(str(path), line, "it is not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> SqlPattern:
    """The pattern declared by a text. SqlFileError if there is none, naming file and line."""
    header = list(_header(text))
    lines = [line for line in header if line[1]]
    if not lines:
        raise SqlFileError(file, 1, "it must begin with a comment, `-- Name: what it is`")
    name, description, fields = _declared(lines, file)

    def fail(field: str, problem: object) -> SqlFileError:
        number, _ = fields.get(field, (lines[0][0], ""))
        return SqlFileError(file, number, str(problem))

    try:
        field = "parameters"
        parameters = _parameters(fields[field][1]) if field in fields else Parameters()
        field = "timeframes"
        timeframes = tuple(_words(fields[field][1])) if field in fields else TIMEFRAMES
        check_timeframes(name, timeframes)
        field = "candles"
        length = _length(fields[field][1] if field in fields else None, parameters)
        found = SqlPattern(
            name=name,
            length=length,
            timeframes=timeframes,
            parameters=parameters,
            source=fields["source"][1] if "source" in fields else "",
            description=description,
            query=_query(text, len(header), file),
            file=file,
        )
        found.candles(parameters, timeframes[0])
    except SqlFileError:
        raise
    except ValueError as error:
        raise fail(field, error) from None
    return found


def _header(text: str) -> Iterator[tuple[int, str]]:
    """The comment lines at the beginning without their marks, and their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("--"):
            return
        yield number, line.removeprefix("--").strip()


def _declared(
    lines: list[tuple[int, str]], file: str
) -> tuple[str, str, dict[str, tuple[int, str]]]:
    """Name, description, and the fields with the numbers of their lines."""
    number, first = lines[0]
    name, colon, summary = first.partition(":")
    if not colon or not NAME.fullmatch(name) or not summary.strip():
        raise SqlFileError(file, number, f"`-- Name: what it is` expected, not {first!r}")
    told = [summary.strip()]
    fields: dict[str, tuple[int, str]] = {}
    for number, line in lines[1:]:
        if match := FIELD.fullmatch(line):
            field, value = match.groups()
            if field in fields:
                raise SqlFileError(file, number, f"{field} is there twice")
            fields[field] = number, value
        elif fields:
            raise SqlFileError(file, number, f"one of {', '.join(FIELDS)} expected, not {line!r}")
        else:
            told.append(line)
    description = told[0] if len(told) == 1 else "\n".join((told[0], "", *told[1:]))
    return name, description, fields


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parameters(text: str) -> Parameters:
    found = Parameters()
    for word in _words(text):
        match = PARAMETER.fullmatch(word)
        if not match:
            raise ValueError(f"`name = number` expected, not {word!r}")
        name, value = match.groups()
        if name in found:
            raise ValueError(f"parameter {name} is there twice")
        found[name] = _number(name, value)
    return found


def _number(name: str, text: str) -> float:
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ValueError(f"parameter {name} is {text!r}, not a number")
    return float(text)


def _length(text: str | None, parameters: Parameters) -> Length:
    if text is None:
        raise ValueError("`-- candles: number` is missing")
    if text.isdecimal():
        return constant(int(text))
    if text in parameters:
        return lambda p, _timeframe: p.whole(text)
    raise ValueError(f"candles is {text!r}, neither a number nor a parameter")


def _query(text: str, header: int, file: str) -> str:
    rest = "\n".join(text.splitlines()[header:])
    before = BEFORE.match(rest)
    begins = before.end() if before else 0
    query = END.sub("", rest[begins:].rstrip()).rstrip()
    several = re.search(r";\s*$", COMMENT.sub("", query), re.MULTILINE)
    if not re.match(r"(select|with)\b", query, re.IGNORECASE) or several:
        line = header + rest.count("\n", 0, begins) + 1
        raise SqlFileError(file, line, "one select expected after the comment")
    return query
