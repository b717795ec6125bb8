"""The history that this toolkit has written into a model: each step, read back from the metadata.

The entry is text from a file, so that every field may be missing or of another kind than the toolkit writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib_toolkit.plan import PROVENANCE
from lib_toolkit.reports.numbers import human_bytes

_HASHES = ("sha256", "autov2", "autov3", "legacy")
_MOST = 200


@dataclass(frozen=True)
class SourceName:
    """A file that a step read: its name, its size in bytes, and its hashes where they were taken."""

    name: str | None
    size: int | None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Name and size in words."""
        size = "" if self.size is None else f" ({human_bytes(self.size)})"
        return f"{self.name or 'a file without a name'}{size}"


@dataclass(frozen=True)
class Step:
    """One time that a tool wrote the model. ``parts`` are further files that lent tensors."""

    tool: str | None
    version: str | None
    source: SourceName | None
    operations: tuple[str, ...] = ()
    parts: tuple[SourceName, ...] = ()

    def sentence(self) -> str:
        """The step in words."""
        who = " ".join(filter(None, (self.tool, self.version))) or "A tool without a name"
        source = f" from {self.source.text()}" if self.source else ""
        parts = f", with parts of {', '.join(part.text() for part in self.parts)}" if self.parts else ""
        done = f": {', '.join(self.operations)}" if self.operations else ""
        return f"{who} wrote it{source}{parts}{done}."


def history(metadata: Mapping[str, str]) -> tuple[Step, ...]:
    """The steps that the metadata tells of, oldest first; empty where there are none or they cannot be read."""
    try:
        entries = json.loads(metadata.get(PROVENANCE, "[]"))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(entries, list):
        return ()
    return tuple(_step(entry) for entry in entries[:_MOST] if isinstance(entry, dict))


def step_json(step: Step) -> dict[str, object]:
    """A step as plain data."""
    return {
        "tool": step.tool,
        "version": step.version,
        "source": _source_json(step.source) if step.source else None,
        "operations": list(step.operations),
        "parts": [_source_json(part) for part in step.parts],
    }


def _source_json(source: SourceName) -> dict[str, object]:
    return {"name": source.name, "size": source.size, "hashes": dict(source.hashes)}


def _step(entry: dict[str, object]) -> Step:
    source, operations, parts = entry.get("source"), entry.get("operations"), entry.get("parts")
    return Step(
        _text(entry.get("tool")),
        _text(entry.get("version")),
        _source(source) if isinstance(source, dict) else None,
        tuple(_text(one) or "?" for one in operations[:_MOST]) if isinstance(operations, list) else (),
        tuple(_source(one) for one in parts[:_MOST] if isinstance(one, dict)) if isinstance(parts, list) else (),
    )


def _source(entry: dict[str, object]) -> SourceName:
    size = entry.get("size")
    whole = size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 63 else None
    hashes = {name: text.strip() for name in _HASHES if (text := _text(entry.get(name))) and text.strip()}
    return SourceName(_text(entry.get("name")), whole, hashes)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
