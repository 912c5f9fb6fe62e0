"""Grafana's published schema of dashboards, as its foundation SDK carries it, asked two ways.

The newest version of the SDK that is in the package index is that of Grafana 11.6; dashboards of that
schema are read by later versions.
"""

import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
# What is within is the data source's own, and no part of the schema.
FREE = ("targets", "target")


def misfits(dashboard: dict[str, Any]) -> Iterator[str]:
    """What the schema does not know, and values of another type than it wants."""
    read = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    yield from _unknown(dashboard, json.loads(json.dumps(read, cls=JSONEncoder)), "")
    yield from _other_types(read, Dashboard, "")


def _unknown(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Paths that the SDK has lost, for it has no place for them."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}/{key} is unknown"
            elif key not in FREE:
                yield from _unknown(value, theirs[key], f"{path}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _unknown(one, other, f"{path}/{index}")
    elif ours != theirs:
        yield f"{path} is {theirs!r}, read from {ours!r}"


def _other_types(value: Any, wanted: Any, path: str) -> Iterator[str]:
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if hasattr(value, "to_json") and wanted in (Any, object, type(value)):
        # Any: the options of a panel, which the SDK knows by the panel's type.
        for name, kind in typing.get_type_hints(type(value)).items():
            yield from _other_types(getattr(value, name), kind, f"{path}/{name}")
    elif origin in (typing.Union, types.UnionType):
        yield from _none_of(value, inner, path)
    elif origin is list and isinstance(value, list):
        for index, each in enumerate(value):
            yield from _other_types(each, inner[0], f"{path}/{index}")
    elif not _fits(value, wanted, origin or wanted):
        yield f"{path} is {value!r}, not {wanted}"


def _none_of(value: Any, choices: tuple[Any, ...], path: str) -> Iterator[str]:
    if type(value) in choices:
        yield from _other_types(value, type(value), path)
    else:
        # The complaints of the choice that it comes closest to; None comes close to nothing.
        others = [choice for choice in choices if choice is not types.NoneType]
        yield from min((list(_other_types(value, other, path)) for other in others), key=len)


def _fits(value: Any, wanted: Any, kind: Any) -> bool:
    if wanted in (Any, object):
        return True
    if kind is typing.Literal:
        return value in typing.get_args(wanted)
    if issubclass(kind, enum.Enum):
        return value in [each.value for each in kind]
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
