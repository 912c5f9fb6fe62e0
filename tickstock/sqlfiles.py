"""The SQL that ships with tickstock: `sql/` in a checkout, `tickstock/sql` in an installed wheel.

A file name may carry a tag, as in `004-candles.community.sql`: the file is for the engines so tagged.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ENGINE_TAGS = {
    "community": {"community", "timescaledb"},
    "apache": {"portable", "timescaledb"},
    "postgres": {"portable"},
}
"""Engine -> the tags of the files that fit it. `portable`: without continuous aggregates."""


class SqlFile(NamedTuple):
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def tag(self) -> str | None:
        parts = self.name.split(".")
        return parts[1] if len(parts) == 3 else None

    def fits(self, engine: str) -> bool:
        return self.tag is None or self.tag in ENGINE_TAGS[engine]


def sql_folder() -> Path:
    package = Path(__file__).parent
    shipped = package / "sql"
    return shipped if shipped.is_dir() else package.parent / "sql"


def read(path: str) -> SqlFile:
    """One file by its path below `sql/`."""
    file = sql_folder() / path
    return SqlFile(file.name, file.read_text(encoding="utf-8"))


def files(folder: str, engine: str) -> list[SqlFile]:
    """The files of a folder below `sql/` that fit the engine, in order of their names."""
    names = sorted(path.name for path in (sql_folder() / folder).glob("*.sql"))
    return [file for name in names if (file := read(f"{folder}/{name}")).fits(engine)]


def combined_sha256(several: Iterable[SqlFile]) -> str:
    """One hash over the names and texts of several files."""
    return hashlib.sha256("".join(file.name + file.sha256 for file in several).encode()).hexdigest()
