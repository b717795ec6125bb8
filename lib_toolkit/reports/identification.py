"""An identification as JSON-able data, and as the text that a person reads in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lib_toolkit.dtypes import DType
from lib_toolkit.identify.evidence import Identification, Leftover, Match, Rejected
from lib_toolkit.model import Model, count_bytes, count_parameters
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.plain import printable
from lib_toolkit.tensors import nbytes

SCHEMA = 1
"""Version of the JSON; grows when a field changes its meaning or goes."""

_VALUE_LENGTH = 200
_LISTED = 5
_FORMATS: Mapping[str, str] = {
    "safetensors": "safetensors",
    "torch-zip": "PyTorch (zip)",
    "torch-legacy": "PyTorch (before 1.6)",
    "pickle": "pickle",
}


def identification_json(model: Model, identification: Identification, keys: bool = False) -> dict[str, object]:
    """The identification as plain dicts, lists, strings, numbers and None, in the documented schema.

    ``tensors``, ``parameters`` and ``bytes`` count the state dict in use; ``keys`` adds a list of its tensors.
    Text from the file is given as it is: whoever shows it escapes it.
    """
    result: dict[str, object] = {"schema": SCHEMA, **_file_facts(model), **_findings(identification)}
    if keys:
        result["keys"] = _keys(model, identification)
    return result


def _file_facts(model: Model) -> dict[str, object]:
    tensors = model.tensors.values()
    return {
        "file": model.name,
        "file_bytes": model.origin.size,
        "format": model.origin.format,
        "container": model.container,
        "tensors": len(tensors),
        "parameters": count_parameters(tensors),
        "bytes": count_bytes(tensors),
        "dtypes": _dtypes(model),
        "outside": [{"path": path, "bytes": nbytes(tensor)} for path, tensor in model.outside.items()],
        "values": {path: _short(value) for path, value in model.values.items()},
        "metadata": dict(model.metadata),
    }


def _findings(identification: Identification) -> dict[str, object]:
    leftovers = identification.leftovers
    return {
        "kind": identification.kind,
        "architecture": _architecture_name(identification),
        "id": identification.id,
        "base": identification.base,
        "intact": identification.intact,
        "missing_classes": list(identification.missing_classes),
        "components": [_component(match) for match in identification.components],
        "rejected": [_rejected(entry) for entry in identification.rejected],
        "leftovers": {
            "protected": [_leftover(entry) for entry in leftovers.protected],
            "removable": [_leftover(entry) for entry in leftovers.removable],
            "unknown": [_leftover(entry) for entry in leftovers.unknown],
        },
        "buffers": list(identification.buffers),
        "position_ids": list(identification.position_ids),
        "renames": dict(identification.renames),
        "quantised": identification.quantised,
        "rank": list(identification.lora.ranks) if identification.lora else None,
        "notes": list(identification.notes),
        "warnings": list(identification.warnings),
    }


def _architecture_name(identification: Identification) -> str | None:
    """The name of a known architecture or of the file with parts missing; None for what has no name."""
    named = identification.architecture is not None or identification.name.endswith("-BROKEN")
    return identification.name if named else None


def _component(match: Match) -> dict[str, object]:
    return {
        "component": match.component.name,
        "id": match.component.id or None,
        "class": match.component.cls,
        "prefix": match.prefix,
        "layout": match.layout,
        "complete": match.complete,
        "missing": list(match.missing),
        "wrong_shape": [
            {"key": wrong.key, "expected": list(wrong.expected), "found": list(wrong.found)}
            for wrong in match.wrong_shape
        ],
        "extra": list(match.extra),
        "tensors": match.tensors,
        "parameters": match.parameters,
        "bytes": match.bytes,
    }


def _rejected(entry: Rejected) -> dict[str, object]:
    return {"name": entry.name, "reason": entry.reason, "examples": list(entry.examples)}


def _leftover(entry: Leftover) -> dict[str, object]:
    return {"key": entry.key, "bytes": entry.bytes, "reason": entry.reason, "belongs_to": entry.belongs_to}


def _dtypes(model: Model) -> dict[str, int]:
    counted: Counter[DType] = Counter()
    for tensor in model.tensors.values():
        counted[tensor.dtype] += nbytes(tensor)
    return {dtype.name: size for dtype, size in counted.most_common()}


def _keys(model: Model, identification: Identification) -> list[dict[str, object]]:
    owners = identification.component_of()
    return [
        {
            "key": key,
            "dtype": tensor.dtype.name,
            "shape": list(tensor.shape),
            "bytes": nbytes(tensor),
            "component": owners[key].component.name if key in owners else None,
        }
        for key, tensor in model.tensors.items()
    ]


def _short(value: object) -> str:
    """A value from a pickle in at most a line."""
    text = str(value)
    return text if len(text) <= _VALUE_LENGTH else f"{text[:_VALUE_LENGTH]}… ({len(text):,} characters)"


def identification_text(model: Model, identification: Identification, *, keys: bool = False) -> str:
    """What ``inspect`` prints: the verdict in sentences, then tables. ``keys`` lists every tensor."""
    lines = _verdict(model, identification)
    lines += _section("Components", _component_rows(identification.components))
    lines += _section("Rejected", [(entry.name, entry.reason) for entry in identification.rejected])
    for title, entries in (
        ("Protected (kept with what they belong to)", identification.leftovers.protected),
        ("Removable", identification.leftovers.removable),
        ("Unknown", identification.leftovers.unknown),
    ):
        lines += _section(title, _leftover_rows(entries, keys))
    lines += _section("Types", [(name, human_bytes(size)) for name, size in _dtypes(model).items()])
    lines += _section("Missing and misshapen", _faults(identification.components))
    lines += _section("Metadata", [(key, _short(value)) for key, value in model.metadata.items()])
    lines += _section("Other values", [(path, _short(value)) for path, value in list(model.values.items())[:_LISTED]])
    if keys:
        lines += _section("Tensors", _key_rows(model))
    lines += _section("Notes", [(note,) for note in identification.notes])
    lines += _section("Warnings", [(warning,) for warning in identification.warnings])
    return "\n".join(lines) + "\n"


def _verdict(model: Model, identification: Identification) -> list[str]:
    identity = f" (id {identification.id})" if identification.id else ""
    state = _state(identification)
    form = _FORMATS.get(model.origin.format, model.origin.format)
    count, size = len(model.tensors), human_bytes(count_bytes(model.tensors.values()))
    parameters = count_parameters(model.tensors.values())
    lines = [
        printable(f"{model.name}: {identification.name}{identity}, {identification.kind.replace('_', ' ')}; {state}."),
        printable(f"{form}; {counted(count, 'tensor')}, {parameters:,} parameters, {size}."),
    ]
    if identification.lora is not None:
        ranks = ", ".join(str(rank) for rank in identification.lora.ranks) or "unknown"
        lines.append(f"Base {identification.base or 'unknown'}; rank {ranks}.")
    if identification.quantised:
        lines.append(f"Quantised: {printable(identification.quantised)}.")
    if identification.missing_classes:
        lines.append(f"Missing or incomplete: {', '.join(identification.missing_classes)}.")
    if identification.buffers:
        lines.append(f"It carries {counted(len(identification.buffers), 'schedule buffer')}, kept as stored.")
    if model.container:
        lines.append(printable(f"The state dict in use is {model.container}."))
    if model.outside:
        lines.append(f"Outside the state dict: {counted(len(model.outside), 'tensor')}, {_outside(model)}.")
    return lines


def _state(identification: Identification) -> str:
    if identification.intact:
        return "intact"
    if identification.kind == "unknown":
        return "nothing that is known fits"
    return "no known size" if identification.architecture is None else "parts are missing"


def _key_rows(model: Model) -> list[tuple[str, ...]]:
    return [
        (key, tensor.dtype.name, str(list(tensor.shape)), human_bytes(nbytes(tensor)))
        for key, tensor in model.tensors.items()
    ]


def _outside(model: Model) -> str:
    return human_bytes(count_bytes(model.outside.values()))


def _component_rows(components: Sequence[Match]) -> list[tuple[str, ...]]:
    return [
        (
            match.component.name,
            match.layout,
            match.prefix or "(no prefix)",
            counted(match.tensors, "tensor"),
            human_bytes(match.bytes),
            "complete" if match.complete else f"{len(match.missing):,} missing, {len(match.wrong_shape):,} wrong",
        )
        for match in components
    ]


def _leftover_rows(entries: Sequence[Leftover], verbose: bool) -> list[tuple[str, ...]]:
    """By reason: how many and how large; single keys too where they are few or asked for."""
    reasons: dict[str, list[Leftover]] = {}
    for entry in entries:
        reasons.setdefault(entry.reason, []).append(entry)
    rows: list[tuple[str, ...]] = []
    for reason, group in reasons.items():
        total = sum(entry.bytes for entry in group)
        rows.append((reason, counted(len(group), "tensor"), human_bytes(total)))
        shown = group if verbose else group[:_LISTED]
        rows += [(f"  {entry.key}", "", human_bytes(entry.bytes)) for entry in shown]
        if len(group) > len(shown):
            rows.append((f"  and {len(group) - len(shown):,} more",))
    return rows


def _faults(components: Iterable[Match]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for match in components:
        rows += [(key, "missing") for key in match.missing[:_LISTED]]
        if len(match.missing) > _LISTED:
            rows.append((f"and {len(match.missing) - _LISTED:,} more of {match.component.name}", "missing"))
        rows += [
            (wrong.key, f"is {list(wrong.found)}, should be {list(wrong.expected)}")
            for wrong in match.wrong_shape[:_LISTED]
        ]
    return rows


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A heading and aligned rows, nothing where there are none. Every cell is escaped."""
    if not rows:
        return []
    cells = [tuple(printable(cell) for cell in row) for row in rows]
    columns = max(len(row) for row in cells)
    widths = [max((len(row[column]) for row in cells if len(row) > column + 1), default=0) for column in range(columns)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells]
    return ["", title, *(f"  {line}" for line in lines)]
