"""The wheel: built, installed where nothing else is, and used from elsewhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tickstock

from .e2e.program import environment

ROOT = Path(__file__).parents[1]
DEADLINE = 300.0
"""Seconds. Most of it is pip."""


def check_output(*command: str | Path, folder: Path, **settings: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1", **settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    check_output(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tickstock` as pip installs it into an empty environment."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    check_output(sys.executable, "-m", "venv", home, folder=home.parent)
    constraints = ROOT / "constraints.txt"
    check_output(
        home / "bin/python", "-m", "pip", "install", "--quiet", "-c", constraints, wheel,
        folder=home.parent,
    )  # fmt: skip
    return home / "bin/tickstock"


def test_the_wheel_holds_all_of_the_package_and_all_sql_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "tickstock").rglob("*.py")}
    queries = {f"tickstock/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*.sql")}
    assert len(queries) > 10
    assert packed >= modules | queries
    assert wheel.name == f"tickstock-{tickstock.__version__}-py3-none-any.whl"


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = [Path(name) for name in archive.namelist()]
    others = {p for p in packed if p.parts[0] == "tickstock" and p.suffix not in (".py", ".sql")}
    assert {str(path) for path in others} == {"tickstock/py.typed", "tickstock/chart/page.html"}
    assert {p.parts[0] for p in packed} == {
        "tickstock",
        f"tickstock-{tickstock.__version__}.dist-info",
    }


def test_the_installed_program_says_its_version(program: Path, tmp_path: Path) -> None:
    said = check_output(program, "--version", folder=tmp_path)
    assert said == f"tickstock, version {tickstock.__version__}\n"


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_the_installed_program_migrates(program: Path, empty_url: str, tmp_path: Path) -> None:
    said = check_output(program, "db", "migrate", folder=tmp_path, TICKSTOCK_DATABASE_URL=empty_url)
    assert said.startswith("engine postgres: applied 001-tables.sql, ")
    said = check_output(program, "db", "status", folder=tmp_path, TICKSTOCK_DATABASE_URL=empty_url)
    assert "ohlcv_monthly" in said


@pytest.mark.parametrize(
    "module", ["scan", "ingest", "simulate", "listen", "load", "demo", "status", "doctor", "chart"]
)
def test_every_command_runs_with_what_is_installed(
    program: Path, module: str, tmp_path: Path
) -> None:
    assert "Example: " in check_output(program, module, "--help", folder=tmp_path)
