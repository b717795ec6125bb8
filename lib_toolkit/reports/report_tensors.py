"""The tensors of a report as the page carries them: compact rows, safe to stand inside a script element."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from lib_toolkit.analysis.results import Report, TensorHealth
from lib_toolkit.reports.html import Html
from lib_toolkit.reports.plain import printable
from lib_toolkit.reports.shares import ROLES, roles_of
from lib_toolkit.tensors import nbytes

_LONGEST_KEY = 500


def tensor_rows(report: Report) -> dict[str, object]:
    """Names, and one row a tensor: [key, type, shape, bytes, part, role, remark].

    ``type``, ``part`` and ``role`` are places in the lists of names beside the rows; ``remark`` says in words what is
    odd about the values, empty where nothing is. Keys are made printable: the page shows them, nothing else.
    """
    owners = report.found.component_of()
    roles = roles_of(report.found)
    types, parts = _Names(), _Names()
    rows = []
    for key, tensor in report.model.tensors.items():
        role = roles.get(key, "other")
        part = owners[key].component.name if key in owners else ROLES[role]
        shown = printable(key, _LONGEST_KEY)
        kind, owner = types.place(tensor.dtype.name), parts.place(part)
        remark = _remark(report.health.get(key))
        rows.append([shown, kind, list(tensor.shape), nbytes(tensor), owner, list(ROLES).index(role), remark])
    return {"types": types.names, "parts": parts.names, "roles": list(ROLES), "rows": rows}


class _Names:
    """Names in the order in which they came up."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        """Where the name stands in the list."""
        return self._places.setdefault(name, len(self._places))

    @property
    def names(self) -> list[str]:
        return list(self._places)


def _remark(health: TensorHealth | None) -> str:
    return ", ".join(_oddities(health)) if health is not None else ""


def _oddities(health: TensorHealth) -> Iterable[str]:
    if health.nan:
        yield f"{health.nan:,} NaN"
    if health.infinite:
        yield f"{health.infinite:,} infinite"
    if health.beyond_fp16:
        yield f"{health.beyond_fp16:,} beyond FP16"
    if health.count and health.zero == health.count:
        yield "all zero"


def embedded(data: Mapping[str, object]) -> Html:
    """Data as JSON that can neither end the script element around it nor start a comment in it.

    ASCII alone, with <, > and & as escapes, so that no </script, no <!-- and no U+2028 can stand in it.
    """
    written = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Html(written)
