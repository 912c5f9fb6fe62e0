"""What `tickstock db status` tells."""

from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

from tickstock.db.connection import fetch_value, require_schema


def status(conn: Connection[TupleRow]) -> dict[str, Any]:
    """Engine, versions, sizes and freshness of a database, fit for JSON but for datetimes.

    Sizes are in bytes; rows are the planner's guess, None before the first analyze. Raises
    SchemaMissingError.
    """
    require_schema(conn)
    with conn.cursor(row_factory=dict_row) as cursor:
        relations = cursor.execute(
            "select s.relation, bytes, approximate_rows, chunks, columnstore_chunks, columnstore_bytes"
            " from tickstock.relation_sizes s"
            " left join timeframes t on s.relation = 'ohlcv_' || t.timeframe"
            " order by t.position, s.relation"
        ).fetchall()
        freshness = cursor.execute("select * from tickstock.freshness").fetchone()
    return {
        "engine": fetch_value(conn, "select tickstock_engine()"),
        "schema_made_for": fetch_value(conn, "select engine from tickstock.migrations limit 1"),
        "versions": {
            "postgresql": fetch_value(conn, "select current_setting('server_version')"),
            "timescaledb": fetch_value(
                conn, "select extversion from pg_extension where extname = 'timescaledb'"
            ),
            "tickstock": fetch_value(
                conn, "select version from tickstock.migrations order by applied_at desc limit 1"
            ),
        },
        "relations": relations,
        "freshness": freshness,
    }
