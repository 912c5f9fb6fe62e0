"""The settings file: an operator's own defaults, in TOML. Not a command.

What stands at the top holds for each command that has such an option; a table, such as [ingest] or
[db.migrate], for one command. Weaker than the command line and the environment, stronger than our
defaults: that is click's default_map, which is made here.
"""

import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click

from tickstock.cli import options, walk
from tickstock.errors import SettingsError

VARIABLES = {
    "engine": "TICKSTOCK_ENGINE",
    "data-dir": "TICKSTOCK_DATA_DIR",
    "cache-dir": "TICKSTOCK_CACHE_DIR",
}
"""Settings without an option, by their keys: the file sets the variable, if it is not set."""
FOLDERS = {"data-dir", "cache-dir"}


class _Kind(NamedTuple):
    words: str
    example: str
    types: tuple[type, ...]


TEXT = _Kind("text", '"…"', (str,))
FLAG = _Kind("true or false", "true", (bool,))
WHOLE = _Kind("a whole number", "5", (int,))
NUMBER = _Kind("a number", "0.5", (int, float))
MOMENT = _Kind("a day or a time of day", "2025-11-24", (str, date))


def default_map(program: click.Group, command: str, given: Path | None) -> dict[str, Any]:
    """What the settings file says for this command of the program, in click's form.

    Read is the file given, else ~/.config/tickstock/settings.toml, if there is one. Its settings
    without an option are put into the environment. Raises SettingsError, which names file, key and
    remedy.
    """
    file = file_of(given)
    return _Reader(program, file).default_map(command) if file else {}


def check_all(program: click.Group, file: Path) -> None:
    """Look at the tables of all commands, not of one only. Raises SettingsError."""
    reader = _Reader(program, file)
    for command in program.list_commands(click.Context(program)):
        reader.default_map(command)


def file_of(given: Path | None) -> Path | None:
    """The file that is read: the one given, else the usual one if it is there."""
    return given or _usual_file()


def keys_of(option: click.Option) -> list[str]:
    """What an option may be called in the file: its long name, and its environment variables."""
    names = [name.removeprefix("--") for name in option.opts if name.startswith("--")]
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    return [*names, *map(str, variables)]


def _usual_file() -> Path | None:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    file = Path(folder) / "tickstock/settings.toml"
    # Not Path.exists(), which fails where this user may not look.
    return file if os.path.exists(file) else None  # noqa: PTH110


class _Reader:
    def __init__(self, program: click.Group, file: Path) -> None:
        self._program = program
        self._file = file
        self._table = self._parse()

    def default_map(self, command: str) -> dict[str, Any]:
        top = {key: value for key, value in self._table.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in self._table.items() if key not in top}
        shared = self._checked(top, options.shared, "")
        known = self._program.list_commands(click.Context(self._program))
        for name in tables:
            if name not in known:
                raise self._error(f"[{name}] is not a command" + _meant(name, known))
        found = self._program.get_command(click.Context(self._program), command)
        assert found
        return {command: self._of(found, tables.get(command, {}), command, shared)}

    def _of(
        self,
        command: click.Command,
        table: Mapping[str, Any],
        where: str,
        shared: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The settings of a command, or of a group's commands by their names."""
        if isinstance(command, click.Group):
            for key, value in table.items():
                if key not in command.commands or not isinstance(value, dict):
                    tables = ", ".join(f"[{where}.{name}]" for name in command.commands)
                    raise self._error(f"{key} in [{where}]: put settings into one of {tables}")
            return {
                name: self._of(each, table.get(name, {}), f"{where}.{name}", shared)
                for name, each in command.commands.items()
            }
        names = {option.name for option in options.options_of(command)}
        taken = {name: value for name, value in shared.items() if name in names}
        return taken | self._checked(table, command, where)

    def _checked(
        self, table: Mapping[str, Any], command: click.Command, where: str
    ) -> dict[str, Any]:
        """The settings of a table by the names of the command's parameters."""
        known = {key: option for option in options.options_of(command) for key in keys_of(option)}
        found: dict[str, tuple[str, Any]] = {}
        for key, value in table.items():
            if option := known.get(key):
                name = str(option.name)
                if name in found:
                    raise self._error(
                        f"{_place(key, where)} is set as {found[name][0]} already: remove one"
                    )
                found[name] = key, self._value(command, option, key, value, where)
            elif not where and (variable := _variable(key)):
                self._set_variable(key, variable, value)
            else:
                raise self._unknown(key, where, known)
        # An empty list is as if it were not there.
        return {name: value for name, (_, value) in found.items() if value != []}

    def _value(
        self, command: click.Command, option: click.Option, key: str, value: Any, where: str
    ) -> Any:
        """The value as click takes it, after all its own checks."""
        kind = FLAG if option.is_flag else _kind(option.type)
        items = value if option.multiple and isinstance(value, list) else [value]
        if not all(_is(item, kind) for item in items):
            example = f"[{kind.example}, {kind.example}]" if option.multiple else kind.example
            words = f"a list of {kind.words}s" if option.multiple else kind.words
            raise self._error(f"{_place(key, where)} must be {words}, such as {key} = {example}")
        if option.is_flag:
            return value
        items = [self._plain(item, is_path=isinstance(option.type, click.Path)) for item in items]
        plain = items if option.multiple else items[0]
        try:
            option.process_value(click.Context(command, resilient_parsing=True), plain)
        except click.BadParameter as error:
            raise self._error(f"{_place(key, where)}: {error.message.rstrip('.')}") from None
        return plain

    def _plain(self, value: Any, *, is_path: bool) -> Any:
        """As one would write it on the command line; a path is meant from the file's folder."""
        if is_path:
            return os.path.join(self._file.absolute().parent, os.path.expanduser(value))  # noqa: PTH111, PTH118
        if isinstance(value, datetime):
            whole = not value.second and not value.microsecond
            # With seconds, which no option takes, it is refused.
            return value.isoformat(timespec="minutes" if whole else "auto")
        return value.isoformat() if isinstance(value, date) else value

    def _set_variable(self, key: str, variable: str, value: Any) -> None:
        if not _is(value, TEXT):
            raise self._error(f"{key} must be {TEXT.words}, such as {key} = {TEXT.example}")
        folder = variable in {VARIABLES[each] for each in FOLDERS}
        if not os.environ.get(variable):
            os.environ[variable] = self._plain(value, is_path=folder)

    def _parse(self) -> dict[str, Any]:
        try:
            with self._file.open("rb") as stream:
                mode = os.fstat(stream.fileno())
                table = tomllib.load(stream)
        except OSError as error:
            raise self._error(
                f"can't be read ({error.strerror}): correct --settings (TICKSTOCK_SETTINGS)"
            ) from None
        except (ValueError, RecursionError) as error:  # not TOML, or not even UTF-8
            raise self._error(f"is not TOML: {error}") from None
        # As libpq has it for keys: root's own may be read by a group.
        others = stat.S_IRWXO | stat.S_IWGRP | (stat.S_IRGRP if mode.st_uid else 0)
        if mode.st_mode & others and (key := next(_secrets(table), None)):
            raise self._error(f"others can read it, and {key} is a secret: chmod 600 {self._file}")
        return table

    def _unknown(self, key: str, where: str, known: Iterable[str]) -> SettingsError:
        place = _place(key, where)
        if not where:
            if key in self._program.list_commands(click.Context(self._program)):
                return self._error(f"{key} is a command: put its settings into a table, [{key}]")
            homes = [
                ".".join(path)
                for path, command in walk(self._program)
                for option in options.options_of(command)
                if key in keys_of(option)
            ]
            if homes:
                tables = " or ".join(f"[{home}]" for home in homes[:3])
                return self._error(f"{place} is not a setting of all commands: set it in {tables}")
            known = [*known, *VARIABLES, *VARIABLES.values()]
        help_of = " ".join(["tickstock", *where.split(".")]).strip()
        return self._error(
            f"{place} is not a setting" + (_meant(key, known) or f"; `{help_of} --help` lists them")
        )

    def _error(self, text: str) -> SettingsError:
        return SettingsError(f"settings file {self._file}: {text}")


def _variable(key: str) -> str | None:
    return VARIABLES.get(key) or (key if key in VARIABLES.values() else None)


def _kind(type_: click.ParamType[Any]) -> _Kind:
    if isinstance(type_, click.types.IntParamType):
        return WHOLE
    if isinstance(type_, click.types.FloatParamType):
        return NUMBER
    return MOMENT if type_.name in ("datetime", "time") else TEXT


def _is(value: Any, kind: _Kind) -> bool:
    if isinstance(value, bool) != (kind is FLAG) or (isinstance(value, str) and "\0" in value):
        return False
    # Times are New York's, or UTC, as each option says: one with a zone of its own would mislead.
    zoned = isinstance(value, datetime) and value.tzinfo is not None
    return isinstance(value, kind.types) and not zoned


def _place(key: str, where: str) -> str:
    return f"{key} in [{where}]" if where else key


def _meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else ""


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """The keys that hold secrets, in all tables."""
    of = {key: each for each in options.SHARED for key in keys_of(each)}
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif isinstance(option := of.get(key), options.Secret) and any(
            option.secrets_in(str(value))
        ):
            yield key
