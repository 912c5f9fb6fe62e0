"""Where tickstock keeps what it can fetch again (cache) and what it cannot (data)."""

import hashlib
import os
import stat
from pathlib import Path

from tickstock.errors import SettingsError

SOCKET_FOLDER_LIMIT = 88
"""Bytes: a socket's whole path must fit into 104 bytes (macOS; Linux has 108)."""


def is_root() -> bool:
    return os.geteuid() == 0


def _folder(variable: str, for_root: str, xdg_variable: str, below_home: str) -> Path:
    given = os.environ.get(variable)
    try:
        if given:
            return Path(given).expanduser().absolute()
        if is_root():
            return Path(for_root)
        xdg = os.environ.get(xdg_variable)
        return (Path(xdg) if xdg else Path.home() / below_home).absolute() / "tickstock"
    except RuntimeError:  # what pathlib says of the home of an account that is not there
        told = (
            f"{variable} is {given}: there is no such account"
            if given
            else "this user has no home folder"
        )
        raise SettingsError(f"{told}. Set {variable} to the path of a folder") from None


def cache_dir() -> Path:
    """Things that can be fetched again; `$TICKSTOCK_CACHE_DIR` decides when set."""
    return _folder("TICKSTOCK_CACHE_DIR", "/var/cache/tickstock", "XDG_CACHE_HOME", ".cache")


def data_dir() -> Path:
    """The embedded servers' data; `$TICKSTOCK_DATA_DIR` decides when set."""
    return _folder("TICKSTOCK_DATA_DIR", "/var/lib/tickstock", "XDG_DATA_HOME", ".local/share")


def rootfs_dir() -> Path:
    """One folder per root file system."""
    return cache_dir() / "rootfs"


def make_folder(folder: Path, mode: int = 0o755) -> Path:
    """Make the folder and its missing parents with this mode, whatever the umask is.

    As root, the server runs under another account, which must be able to pass through.
    """
    if not folder.is_dir():
        make_folder(folder.parent, mode)
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    return folder


def socket_folder(folder: Path) -> Path:
    """The folder, or a short alias of it (a symbolic link) where a socket's path would not fit."""
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_LIMIT:
        return folder
    alias = _alias_path(folder)
    if not (alias.is_symlink() and alias.readlink() == folder):
        fresh = alias.with_name(f"{alias.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder)
        fresh.replace(alias)
    return alias


def forget_socket_folder(folder: Path) -> None:
    """Remove the folder's short alias if it has one."""
    if len(os.fsencode(folder)) > SOCKET_FOLDER_LIMIT:
        _alias_path(folder).unlink(missing_ok=True)


def _alias_path(folder: Path) -> Path:
    return _alias_home() / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _alias_home() -> Path:
    """A folder with a short name that nobody else can write to."""
    runtime = "/run" if is_root() else os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and len(runtime) < SOCKET_FOLDER_LIMIT - 32 and Path(runtime).is_dir():
        home = Path(runtime) / "tickstock"
    else:
        home = Path(f"/tmp/tickstock-{os.geteuid()}")  # noqa: S108 - checked below
    make_folder(home, 0o755 if is_root() else 0o700)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{home} is not a folder that only this user can write to")
    return home
