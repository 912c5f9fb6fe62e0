"""The scripts of a checkout, where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(checkout: Path, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a copy of the script in a checkout of its own."""
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    return subprocess.run(
        ["bash", str(checkout / "scripts" / script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", ["demo", "test"])
def test_a_set_up_that_fails_is_all_that_is_told(tmp_path: Path, script: str) -> None:
    ran = run(tmp_path, script, TICKSTOCK_PYTHON="/nonexistent/python")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("setup: needs Python 3.11 or newer with its venv module (apt")
    assert ran.stderr.count("\n") == 1


def test_without_an_index_it_says_what_it_needs(tmp_path: Path) -> None:
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    ran = run(
        tmp_path,
        "setup",
        TICKSTOCK_PYTHON=sys.executable,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        **nothing,
    )
    assert ran.returncode == 1
    *_, last = ran.stderr.splitlines()
    assert last.startswith("setup: pip could not install them; see above. It needs PyPI, or")
