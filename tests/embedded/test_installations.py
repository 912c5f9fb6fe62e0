"""What is found, in which order, and what is chosen."""

import os
from pathlib import Path

import pytest

from tickstock.embedded import paths
from tickstock.embedded.installations import (
    ENGINES,
    choose_installation,
    copy_of_wheel,
    find_installations,
)
from tickstock.errors import DatabaseUnavailableError

from .support import INSTALLATIONS, root_only


def make_root(home: Path, version: int, *libraries: str) -> Path:
    """The files by which an installation in a root file system is recognized."""
    for folder, names in {"bin": ("postgres", "initdb"), "lib": libraries}.items():
        where = home / "usr/lib/postgresql" / str(version) / folder
        where.mkdir(parents=True)
        for name in names:
            (where / name).touch()
    return home


def test_the_best_comes_first() -> None:
    engines = [ENGINES.index(each.engine) for each in INSTALLATIONS]
    assert engines == sorted(engines)
    plain = [each for each in INSTALLATIONS if each.engine == "postgres"]
    assert [each.is_wheel for each in plain] == sorted((e.is_wheel for e in plain), reverse=True)
    wheel = [each.version for each in plain if each.is_wheel]
    assert wheel == sorted(wheel, reverse=True)


def test_what_is_found_is_there() -> None:
    assert INSTALLATIONS
    for each in INSTALLATIONS:
        assert os.access(each.program("postgres"), os.X_OK)
        assert str(each.version) in str(each)


@root_only
def test_editions_of_root_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSTOCK_CACHE_DIR", str(tmp_path))
    roots = tmp_path / "rootfs"
    libraries = ("timescaledb.so", "timescaledb-2.19.3.so")
    make_root(roots / "apache", 18, *libraries)
    make_root(roots / "old", 16, *libraries, "timescaledb-tsl-2.19.3.so")
    make_root(roots / "new", 17, *libraries, "timescaledb-tsl-2.19.3.so")
    make_root(roots / "plain", 99)
    make_root(roots / "ancient", 9, *libraries)
    make_root(roots / "half.partial", 17, *libraries)
    found = [each for each in find_installations() if each.root and each.root.parent == roots]
    names = [(each.root.name, each.engine) for each in found if each.root]
    assert names == [
        ("new", "community"),
        ("old", "community"),
        ("apache", "apache"),
        ("plain", "postgres"),
    ]
    assert found[0].bindir == Path("/usr/lib/postgresql/17/bin")
    assert found[0].program("psql") == roots / "new/usr/lib/postgresql/17/bin/psql"


def test_timescaledb_is_chosen_before_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKSTOCK_ENGINE", raising=False)
    chosen = choose_installation()
    assert chosen == INSTALLATIONS[0]
    assert chosen.has_timescaledb == any(each.has_timescaledb for each in INSTALLATIONS)


@pytest.mark.parametrize("engine", sorted({each.engine for each in INSTALLATIONS}))
def test_the_engine_can_be_asked_for(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSTOCK_ENGINE", engine)
    assert choose_installation().engine == engine


def test_an_engine_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSTOCK_CACHE_DIR", str(tmp_path))
    there = {each.engine for each in find_installations()}
    for engine in {"community", "apache"} - there:
        monkeypatch.setenv("TICKSTOCK_ENGINE", engine)
        with pytest.raises(DatabaseUnavailableError, match=rf"{engine}.* found: .*PostgreSQL"):
            choose_installation()


def test_an_engine_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSTOCK_ENGINE", "oracle")
    with pytest.raises(DatabaseUnavailableError, match="oracle: must be one of community"):
        choose_installation()


@pytest.mark.skipif(not any(each.is_wheel for each in INSTALLATIONS), reason="no wheel")
def test_the_copy_of_the_wheel_is_whole_and_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKSTOCK_CACHE_DIR", str(tmp_path))
    wheel = next(each for each in INSTALLATIONS if each.is_wheel)
    bindir = copy_of_wheel(wheel)
    assert {f.name for f in bindir.iterdir()} == {f.name for f in wheel.bindir.iterdir()}
    for each in (bindir / "postgres", bindir.parent, bindir.parent / "share"):
        assert each.stat().st_mode & 0o777 == 0o755
    first = (bindir / "postgres").stat().st_ino
    assert copy_of_wheel(wheel) == bindir
    assert (bindir / "postgres").stat().st_ino == first


def test_folders_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSTOCK_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(tmp_path / "d"))
    assert paths.cache_dir() == tmp_path / "c"
    assert paths.rootfs_dir() == tmp_path / "c/rootfs"
    assert paths.data_dir() == tmp_path / "d"


def test_folders_of_root_and_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICKSTOCK_CACHE_DIR", "TICKSTOCK_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if os.geteuid() == 0:
        assert paths.cache_dir() == Path("/var/cache/tickstock")
        assert paths.data_dir() == Path("/var/lib/tickstock")
    else:
        assert paths.cache_dir() == tmp_path / "xdg/tickstock"
        assert paths.data_dir() == tmp_path / ".local/share/tickstock"
