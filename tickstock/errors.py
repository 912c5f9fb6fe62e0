"""What can go wrong in a way the operator can mend: one line, a remedy, and an exit code of its own.

Every error that a person may see is one of these; anything else that escapes is a bug in tickstock.
"""

import click

EXIT_CODES = {
    0: "done; also after Ctrl-C or SIGTERM, for commands that run until then",
    1: "failed; one line says why",
    2: "wrong usage, or a settings file that can't be used",
    3: "no database",
    4: "the schema is missing or old: `tickstock db migrate`",
    5: "the feed or its REST API refuses the key or the plan",
    6: "the feed can't be reached at the start, or its REST API does not answer",
}
"""What the program ends with. `tickstock db shell` ends with the code of psql."""


class TickstockError(click.ClickException):
    """A failure whose message names the input and the remedy. Exit code 1."""

    exit_code = 1


class SettingsError(TickstockError):
    """The settings file can't be used as it is. Exit code 2, as for a wrong option."""

    exit_code = 2


class DatabaseUnavailableError(TickstockError):
    """No PostgreSQL answers where the settings point. Exit code 3."""

    exit_code = 3


class SchemaMissingError(TickstockError):
    """The database answers but does not hold (this version of) tickstock's schema. Exit code 4."""

    exit_code = 4


class UnknownSymbolError(TickstockError, ValueError):
    """The database has no bar of this symbol. Exit code 1."""


class ChartLibraryMissingError(TickstockError):
    """The extra with the library that draws this kind of chart is not installed. Exit code 1."""


class FeedRefusedError(TickstockError):
    """The feed refuses for good (wrong key, plan without access): retrying is pointless. Exit code 5."""

    exit_code = 5


class FeedUnreachableError(TickstockError):
    """The feed could not be reached at start-up: wrong address, refused connection. Exit code 6."""

    exit_code = 6


class RestRefusedError(TickstockError):
    """The REST API refuses the key for good: retrying is pointless. Exit code 5."""

    exit_code = 5


class RestNotInPlanError(RestRefusedError):
    """The REST API knows the key, but its plan does not include what was asked. Exit code 5.

    Other questions (a later day, other symbols) may be answered.
    """


class RestUnavailableError(TickstockError):
    """The REST API gave no answer, however often it was asked; later it may. Exit code 6."""

    exit_code = 6


class RestFailedError(RestUnavailableError):
    """The REST API is there, but failed at this question however often it was asked. Exit code 6.

    Other questions may be answered.
    """


class RestAnswerError(TickstockError):
    """The REST API answered something that tickstock cannot use; asking again won't help. Exit code 1."""
