"""Shell completion, by the real program: click's own protocol, and a real bash."""

import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tickstock.cli import COMMANDS
from tickstock.cli.completion import SHELLS
from tickstock.patterns import discover
from tickstock.timeframes import TIMEFRAMES

from .e2e.program import environment, eventually, run

PROGRAM = Path(sys.executable).with_name("tickstock")
DEADLINE = 60


def completed(shell: str, *words: str) -> list[str]:
    """What this shell would be told about the last of these words. The program is asked as it asks."""
    line = ["tickstock", *words]
    current = {"COMP_CWORD": str(len(words))} if shell != "fish" else {"COMP_CWORD": words[-1]}
    done = subprocess.run(
        [PROGRAM],
        env=environment(
            COMP_WORDS=" ".join(line), _TICKSTOCK_COMPLETE=f"{shell}_complete", **current
        ),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    if shell == "zsh":  # kind, value, help, a line each
        return lines[1::3]
    return [each.partition(",")[2].partition("\t")[0] for each in lines]


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    assert completed(shell, "l") == [name for name in COMMANDS if name.startswith("l")]
    assert completed(shell, "listen", "--timeframe", "1") == ["1min", "15min", "1hour"]
    assert completed(shell, "patterns", "show", "ham") == ["Hammer"]
    if shell != "bash":
        return
    assert set(completed(shell, "db", "")) == {"migrate", "status", "grant", "shell"}
    assert "--database-url" in completed(shell, "status", "--data")
    assert completed(shell, "chart", "AAPL", "") == list(TIMEFRAMES)
    every = [each.name for each in discover()]
    assert completed(shell, "listen", "--pattern", "") == every
    assert completed(shell, "chart", "AAPL", "5min", "--pattern", "NR") == ["NR7"]
    # The operator's own, and a file among them that is broken: nothing is said about it here.
    (tmp_path / "mine.sql").write_text(
        "-- Mine: nothing.\n-- candles: 1\nselect symbol, judged, 'long' as direction,"
        " 1.0::float8 as strength, '{}'::jsonb as details from candles\n"
    )
    (tmp_path / "broken.py").write_text("(")
    mine = completed(shell, "patterns", "show", "--patterns", str(tmp_path), "m")
    assert mine == ["MACrossover", "Mine"]
    gone = completed(shell, "patterns", "show", "--patterns", str(tmp_path / "gone"), "Ham")
    assert gone == ["Hammer"]


def test_a_broken_settings_file_does_not_greet_whoever_opens_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("x =")
    done = run("--settings", str(file), "completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_click_s_for_a_program_named_tickstock(shell: str) -> None:
    script = run("completion", shell).stdout
    asked = subprocess.run(
        [PROGRAM],
        env=environment(_TICKSTOCK_COMPLETE=f"{shell}_source"),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    assert script.strip() == asked.stdout.strip()
    assert f"_TICKSTOCK_COMPLETE={shell}_complete" in script


def test_in_a_real_bash(tmp_path: Path) -> None:
    """As somebody at a terminal has it, who presses the tabulator."""
    (tmp_path / "day-one.csv").touch()
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    ours, its = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        env=environment(PATH=path, TERM="dumb", PS1="> ", INPUTRC=os.devnull, HISTFILE=os.devnull),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown: list[str] = [""]

    def show() -> None:
        with suppress(OSError):  # the terminal is gone with its shell
            while data := os.read(ours, 4096):
                shown[0] += data.decode(errors="replace")

    reader = threading.Thread(target=show)
    reader.start()

    def type_(text: str, wanted: str) -> None:
        shown[0] = ""
        os.write(ours, text.encode())
        eventually(lambda: wanted in shown[0], f"{wanted!r} after {text!r}: {shown[0]!r}")
        os.write(ours, b"\x15")  # the line is removed

    try:
        type_('eval "$(tickstock completion bash)" && echo re""ady\n', "ready")
        type_("tickstock sc\t", "tickstock scan ")
        type_("tickstock listen --timeframe da\t", "--timeframe daily ")
        type_("tickstock patterns show Ham\t", "show Hammer ")
        type_("tickstock load day\t", "load day-one.csv ")
        os.write(ours, b"exit\n")
        assert bash.wait(DEADLINE) == 0
    finally:
        bash.kill()
        bash.wait()
        reader.join(DEADLINE)
        os.close(ours)


def test_a_shell_that_is_not_known() -> None:
    done = run("completion", "tcsh")
    assert done.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
