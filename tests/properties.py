"""How many examples a property gets whose examples each take statements on a real server."""

import os

from hypothesis import HealthCheck, settings


def on_a_database(examples: int) -> settings:
    """So many, or as many as TICKSTOCK_TEST_EXAMPLES says. The examples share the test's database."""
    return settings(
        max_examples=int(os.environ.get("TICKSTOCK_TEST_EXAMPLES", str(examples))),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
