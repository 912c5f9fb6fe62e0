"""The scripts of a checkout, where something is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("script", ["demo", "test"])
def test_a_set_up_that_fails_is_all_that_is_told(tmp_path: Path, script: str) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    ran = subprocess.run(
        ["bash", str(tmp_path / "scripts" / script)],
        env={**os.environ, "TICKSTOCK_PYTHON": "/nonexistent/python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("setup: needs Python 3.11 or newer with its venv module (apt")
    assert ran.stderr.count("\n") == 1
