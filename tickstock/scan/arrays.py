"""Arrays of numpy to and from the database, where they are float8[]: several times faster than lists."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from psycopg import Connection, Cursor, postgres, pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.rows import TupleRow

from tickstock.patterns import Floats

_FLOAT8 = postgres.types["float8"]
# Big-endian, as all that PostgreSQL sends in binary.
_HEADER = np.dtype(
    [("dimensions", ">i4"), ("has_null", ">i4"), ("type", ">u4"), ("size", ">i4"), ("first", ">i4")]
)
_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])


@contextmanager
def float_arrays(conn: Connection[TupleRow]) -> Iterator[Cursor[TupleRow]]:
    """A cursor to which a one-dimensional float8[] without nulls is an array of numpy, both ways."""
    with conn.cursor(binary=True) as cursor:
        cursor.adapters.register_loader(_FLOAT8.array_oid, _FloatsLoader)
        cursor.adapters.register_dumper(np.ndarray, _FloatsDumper)
        yield cursor


class _FloatsLoader(Loader):
    format = pq.Format.BINARY

    def load(self, data: Buffer) -> Floats:
        elements = np.frombuffer(data, dtype=_ELEMENT, offset=min(_HEADER.itemsize, len(data)))
        floats: Floats = elements["value"].astype(np.float64)
        return floats


class _FloatsDumper(Dumper):
    format = pq.Format.BINARY
    oid = _FLOAT8.array_oid

    def dump(self, obj: Floats) -> bytes:
        header = np.array((1, 0, _FLOAT8.oid, len(obj), 1), dtype=_HEADER)
        elements = np.empty(len(obj), dtype=_ELEMENT)
        elements["size"], elements["value"] = 8, obj
        return header.tobytes() + elements.tobytes()
