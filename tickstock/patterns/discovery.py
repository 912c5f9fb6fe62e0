"""Which patterns there are: those of this package, and those in the operator's own folder."""

import importlib
import importlib.util
import logging
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import tickstock.patterns
from tickstock import sqlfiles
from tickstock.errors import TickstockError
from tickstock.patterns.definition import Pattern
from tickstock.patterns.sql_files import SqlFileError, read_pattern

log = logging.getLogger(__name__)


def discover(folder: Path | None = None) -> list[Pattern]:
    """All patterns by name: those of this package, and those of the folder's files (*.py, *.sql).

    A pattern of a Python file is a variable of the module, or within a tuple or list that is one.
    A file that can't be read is reported and left out; so is a pattern whose name another one has:
    of this package, or of a file before it by name, *.py before *.sql.
    """
    found: dict[str, tuple[Pattern, str]] = {}
    for file, item in (*_ours(), *_of(folder)):
        known, other = found.setdefault(item.name, (item, file))
        if known is not item:
            log.error("pattern left out: %s", _taken(item, file, other))
    return [found[name][0] for name in sorted(found)]


def _taken(item: Pattern, file: str, other: str) -> str:
    return f"{file}: {other} has a pattern named {item.name} already: rename this one"


def _ours() -> Iterator[tuple[str, Pattern]]:
    for info in pkgutil.iter_modules(tickstock.patterns.__path__):
        yield from _in_module(importlib.import_module(f"{tickstock.patterns.__name__}.{info.name}"))
    yield from _in_sql_files(sqlfiles.sql_folder() / "patterns")


def load(path: Path) -> list[Pattern]:
    """The patterns of one file, *.py or *.sql. BrokenFileError says what is wrong with it, and where."""
    try:
        if path.suffix == ".sql":
            return [read_pattern(path)]
        return [item for _, item in _in_module(_import_file(path))]
    except SqlFileError as error:
        raise BrokenFileError(str(error)) from error
    except OSError as error:
        raise BrokenFileError(f"{path}: {error.strerror or error}") from error


class BrokenFileError(ValueError):
    """A pattern file that can't be used: the file, the line, and what is wrong."""


def where_in(path: Path, error: BaseException) -> str:
    """The file, and the line of it in which this went wrong, if it did in one."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _of(folder: Path | None) -> Iterator[tuple[str, Pattern]]:
    if folder is None:
        return
    if not folder.is_dir():
        raise TickstockError(f"no folder {folder}: create it, or correct --patterns")
    for path in (*sorted(folder.glob("[!_]*.py")), *sorted(folder.glob("[!_]*.sql"))):
        yield from _in_file(path)


def _in_sql_files(folder: Path) -> Iterator[tuple[str, Pattern]]:
    for path in sorted(folder.glob("[!_]*.sql")):
        yield from _in_file(path)


def _in_file(path: Path) -> Iterator[tuple[str, Pattern]]:
    try:
        for item in load(path):
            yield str(path), item
    except BrokenFileError as error:
        log.error("pattern file left out: %s", error)


def _in_module(module: ModuleType) -> Iterator[tuple[str, Pattern]]:
    for value in vars(module).values():
        items: Iterable[object] = value if isinstance(value, (tuple, list)) else (value,)
        for item in items:
            if isinstance(item, Pattern):
                yield str(module.__file__), item


def _import_file(path: Path) -> ModuleType:
    name = f"tickstock_user_patterns.{path.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for one, look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        gist = error.msg if isinstance(error, SyntaxError) else error
        place = where_in(path, error)
        raise BrokenFileError(f"{place}: {type(error).__name__}: {gist}") from error
    return module
