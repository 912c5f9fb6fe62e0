"""Who listens under a name: where it is, and that nobody else listens under it meanwhile."""

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value
from tickstock.errors import TickstockError

# Two keys: the names are a space of their own. Held by the session: who dies gives it back.
LOCK = "select pg_try_advisory_lock(hashtext('tickstock.consumer'), hashtext(%s))"
# A new one begins where it is told; one that is known goes on where it was.
BEGIN = """
insert into consumers (consumer, heard) values (%s, %s) on conflict (consumer) do nothing
"""
HEARD = "select heard from consumers where consumer = %s"
SAVE = "update consumers set heard = %s, heard_at = clock_timestamp() where consumer = %s"


class Consumer:
    """A named listener. Its position is kept in the table consumers.

    TickstockError if another one listens under this name.
    """

    def __init__(self, conn: Connection[TupleRow], name: str, since: int) -> None:
        """since: where it begins if it is new."""
        self._conn = conn
        self._name = name
        if not fetch_value(conn, LOCK, name):
            raise TickstockError(
                f"another listener is at work as consumer {name}, or a program that one of --exec "
                "started before it was killed: stop it, or choose another name"
            )
        conn.execute(BEGIN, (name, since))
        self.heard = int(fetch_value(conn, HEARD, name))

    def fileno(self) -> int:
        """The socket of the session that holds the name: who else has it open holds the name, too."""
        return self._conn.fileno()

    def save(self, change: int) -> None:
        """Remember that everything up to this change has been dealt with."""
        if change > self.heard:
            self._conn.execute(SAVE, (change, self._name))
            self.heard = change
