"""Arrays of numpy are to the database what lists are."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import on_one_engine
from tickstock.scan.arrays import float_arrays


@on_one_engine
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(numbers=st.lists(st.floats(), max_size=50))
def test_they_come_back_as_they_went(conn: Connection[TupleRow], numbers: list[float]) -> None:
    query = "select %s, %s, (%s::float8[])::text = (%s::float8[])::text, cardinality(%s::float8[])"
    array = np.array(numbers, dtype=np.float64)
    with float_arrays(conn) as cursor:
        cursor.execute(query, (array, array[::-1], array, numbers, array))
        there, backwards, same, number = cursor.fetchone() or ()
    assert np.array_equal(there, array, equal_nan=True)
    assert np.array_equal(backwards, array[::-1], equal_nan=True)
    assert same
    assert number == len(numbers)
