"""Logs on standard error: lines for people, or JSON for machines. Secrets are blotted out of both.

Nothing in tickstock logs a key or a password; should a library quote one, it is not shown either.
"""

import logging
import re
import sys
from datetime import UTC, datetime
from urllib.parse import unquote

import orjson

FORMATS = ("text", "json")
SHORTEST_SECRET = 4
"""Characters. A shorter one is in half of all words: blotting it out would leave nothing to read."""

_PASSWORDS = (
    re.compile(r"://[^:/@]*:(.*)@", re.DOTALL),  # up to the last @: a raw one may be part of it
    re.compile(r"\bpassword\s*=\s*'((?:[^'\\]|\\.)*)", re.IGNORECASE),
    re.compile(r"\b(?:password|apikey)\s*=\s*([^\s'&]+)", re.IGNORECASE),
)
_secrets: set[str] = set()


def hide(secret: str | None) -> None:
    """From now on, no line of the log shows this, which is `***` instead."""
    for form in {secret or "", unquote(secret or "")}:
        if len(form) >= SHORTEST_SECRET:
            _secrets.add(form)


def passwords_in(address: str) -> list[str]:
    """The passwords in an address or a connection string."""
    return [secret for pattern in _PASSWORDS for secret in pattern.findall(address)]


def set_up(log_format: str = "text") -> None:
    """Log to standard error in this format, `text` or `json`; the level stays what it is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(handlers=[handler], force=True)


def is_json() -> bool:
    """Whether the log is one of JSON lines."""
    return any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers)


def blot(text: str) -> str:
    """The text without what is to be hidden."""
    # The longest first: one secret may be part of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return blot(super().format(record))


class _Json(logging.Formatter):
    """An object a line: time (UTC, ISO 8601), level, logger, message, and exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": _encodable(blot(record.getMessage())),
        }
        if record.exc_info:
            # Its line breaks are escaped like any other's.
            told["exception"] = _encodable(blot(self.formatException(record.exc_info)))
        return orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()


def _encodable(text: str) -> str:
    """A file's name may have bytes that are no text; they are spelled out, as standard error does it."""
    return text.encode("utf-8", "backslashreplace").decode()
