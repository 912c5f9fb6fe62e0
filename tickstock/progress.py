"""How far a command is, for the person at its terminal."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar


def progress_bar(length: int, label: str, *, show_pos: bool = False) -> "ProgressBar[int]":
    """On standard error, with an estimate of the time that is left; nothing where that is no terminal."""
    return click.progressbar(
        length=length,
        label=label,
        file=sys.stderr,
        show_pos=show_pos,
        hidden=not sys.stderr.isatty(),
    )
