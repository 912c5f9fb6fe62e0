"""The services of docker-compose.yml have a file system that can't be written to, but for their volumes."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.program import KEY, NOTHING_WAITS, Program, run, running, until
from tests.scan.support import on_one_engine
from tests.test_compose import DOCKERFILE, OURS
from tickstock.simulator import RandomMarket, Simulator

# Nothing can be written but below the folders named before --.
READ_ONLY = """
mount --make-rprivate / && mount --bind "$1" "$1" || exit 77
top=$1
shift
while [ "$1" != -- ]; do mount --bind "$1" "$1" || exit 77; shift; done
mount -o remount,bind,ro "$top" && mount -o remount,bind,ro / || exit 77
shift
exec "$@"
"""


@pytest.fixture(autouse=True)
def may_mount(tmp_path: Path) -> None:
    tried = subprocess.run([*read_only(tmp_path), "touch", tmp_path / "file"], check=False)
    if tried.returncode == 77 or not tried.returncode:
        pytest.skip("no right to mount a file system for oneself (root, unshare)")


def read_only(top: Path, *writable: Path) -> list[str]:
    """What a command is run by: it can write below these folders of `top`, and nowhere else."""
    return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *map(str, (top, *writable)), "--"]


@contextmanager
def service(name: str, top: Path, arguments: Sequence[str], **settings: str) -> Iterator[Program]:
    """The command as this service of the compose file would run it."""
    declared = OURS[name]
    mounted = [*declared.get("tmpfs", []), *(v.split(":")[1] for v in declared.get("volumes", []))]
    folders = {path: top / path.strip("/") for path in (*mounted, "/tmp", image_data_dir())}  # noqa: S108
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    inside = read_only(top, *(folders[path] for path in mounted))
    settings |= {
        "TMPDIR": str(folders["/tmp"]),  # noqa: S108
        "TICKSTOCK_DATA_DIR": str(folders[image_data_dir()]),
        "HOME": "/nonexistent",
    }
    with running(*arguments, inside=inside, **settings) as program:
        yield program


def image_data_dir() -> str:
    found = re.search(r"^ENV TICKSTOCK_DATA_DIR=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert found
    return found[1]


MARKET = RandomMarket(
    3,
    start=datetime(2025, 11, 24, 14, 30, tzinfo=UTC),
    end=datetime(2025, 11, 24, 16, 5, tzinfo=UTC),
)


@on_one_engine
def test_ingest_and_scan_write_to_their_volumes_only(url: str, tmp_path: Path) -> None:
    database = {"TICKSTOCK_DATABASE_URL": url}
    with Simulator(MARKET, keys=[KEY], speed=0) as simulator:
        command = ["ingest", "--symbols", "*", "--feed-url", simulator.url]
        with (
            service(
                "ingest-simulated", tmp_path, command, **database, MASSIVE_API_KEY=KEY
            ) as ingest,
            service("scan", tmp_path, ["scan"], **database) as scan,
        ):
            until(
                url, "select count(*) from ohlcv_1min", sum(len(m.bars) for m in MARKET.minutes())
            )
            until(url, NOTHING_WAITS)
            assert (ingest.stop(), scan.stop()) == (0, 0)
    assert "TMPDIR" not in "".join(scan.errors)


@on_one_engine
def test_without_a_folder_for_what_waits_ingest_says_so(url: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for folder in ("/proc/nothing", f"{tmp_path}/a file/below"):
        done = run(
            *("ingest", "--symbols", "A", "--feed-url", "ws://127.0.0.1:9/stocks"),
            TICKSTOCK_DATABASE_URL=url,
            MASSIVE_API_KEY=KEY,
            TICKSTOCK_DATA_DIR=folder,
        )
        assert done.returncode == 1
        assert f"{folder}/spill" in done.stderr
        assert "TICKSTOCK_DATA_DIR" in done.stderr
