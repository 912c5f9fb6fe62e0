"""Patterns in words: for people, and as the document docs/patterns.md."""

import inspect
from collections.abc import Mapping, Sequence

from tickstock.patterns.definition import Pattern, SqlPattern
from tickstock.timeframes import TIMEFRAMES

HEAD = """\
# Patterns

Made from the definitions by `tickstock patterns reference`; a test keeps it current. Patterns look at
completed candles only; `candles` says at how many, the newest included. The table `patterns` sets which
ones are looked for, on which timeframes and with which parameters: see
[operations](operations.md#patterns). In a formula, the name of a parameter stands for its value. "The
original plan" is the list of patterns that tickstock began with.
"""
TALIB = """\
These are functions of the library TA-Lib, with its names and parameters. The sign of the result is the
direction: above 0 long, below 0 short. Strength is |result| / 100, at most 1. `penetration` is how far
another candle closes into the first one's body, as a share of that body. All timeframes; 15 candles.
"""


def kind_of(pattern: Pattern) -> str:
    """What it is made of: sql, talib or python."""
    if isinstance(pattern, SqlPattern):
        return "sql"
    return "talib" if pattern.source == "TA-Lib" else "python"


def definition_of(pattern: Pattern) -> str:
    """What it is, its formula, units, and what strength means, without indentation."""
    return inspect.cleandoc(pattern.description)


def timeframes_of(timeframes: Sequence[str]) -> str:
    if tuple(timeframes) == TIMEFRAMES:
        return "all"
    return ", ".join(timeframes) or "none"


def candles_of(pattern: Pattern) -> str:
    """How many candles it looks at with its defaults."""
    numbers = {t: pattern.candles(pattern.parameters, t) for t in pattern.timeframes}
    if len(set(numbers.values())) == 1:
        return str(next(iter(numbers.values())))
    return ", ".join(f"{number} of {timeframe}" for timeframe, number in numbers.items())


def parameters_of(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value_of(value)}" for name, value in parameters.items()) or "none"


def value_of(value: object) -> str:
    """A parameter's value, even one that is no number, as only an older version let through."""
    return f"{value:.10g}" if isinstance(value, int | float) else repr(value)


def reference(patterns: Sequence[Pattern]) -> str:
    """The document, in Markdown."""
    own = [each for each in patterns if kind_of(each) != "talib"]
    talib = [each for each in patterns if kind_of(each) == "talib"]
    names = ["| pattern | is | parameters |", "| --- | --- | --- |"]
    names += [
        f"| `{each.name}` | {each.summary.partition(', as TA-Lib')[0]} | {parameters_of(each.parameters)} |"
        for each in talib
    ]
    sections = [*map(_section, own), "## Candlestick patterns of TA-Lib\n", TALIB, *names]
    return "\n".join((HEAD, *sections, ""))


def _section(pattern: Pattern) -> str:
    summary, _, formula = definition_of(pattern).partition("\n")
    rows = [
        ("timeframes", timeframes_of(pattern.timeframes)),
        ("candles", candles_of(pattern)),
        ("parameters", parameters_of(pattern.parameters)),
        ("made of", "SQL" if kind_of(pattern) == "sql" else "Python"),
        ("source", pattern.source or "none told"),
    ]
    table = [f"| {label} | {text} |" for label, text in rows]
    block = ["```text", formula.strip("\n"), "```", ""] if formula.strip() else []
    return "\n".join(
        (f"## {pattern.name}\n", summary, "", *block, "| | |", "| --- | --- |", *table, "")
    )
