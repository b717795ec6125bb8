"""A plan: the model that is to be, what was left out and why, and how large the file will be.

Edits are functions from plan to plan; nothing is read until ``writing.write`` streams the plan once. What is
previewed, reported and written is the same object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from lib_toolkit import __version__
from lib_toolkit.errors import UsageError
from lib_toolkit.formats.layout import Layout
from lib_toolkit.model import Model
from lib_toolkit.tensors import Tensor, nbytes

Scalar: TypeAlias = "int | float | str | bool | None"

PROVENANCE = "model_toolkit.history"
"""Metadata entry: a JSON list with one object for each time this tool wrote the model, oldest first."""

_HASH_WIDTHS = {"sha256": 64, "autov2": 10, "autov3": 12, "legacy": 8}

SUFFIXES = {"safetensors": ".safetensors", "ckpt": ".ckpt"}
"""File formats that can be written, with the usual ending of their names."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something of the source that the result does not hold. ``what``: ``tensor``, ``value``, ``metadata``,
    or ``group`` for many tensors under one entry whose key ends in ``*``."""

    key: str
    bytes: int
    reason: str
    what: str = "tensor"


@dataclass(frozen=True, slots=True)
class Changed:
    """A tensor or entry that the result holds in another form, told in words."""

    key: str
    what: str


@dataclass(frozen=True)
class Plan:
    """What the result will be made of.

    ``tensors`` by output key; ``metadata`` and ``values`` (what a .ckpt holds beside its tensors, such as
    ``epoch``) go along; ``dropped`` and ``changed`` account for every difference from the source. ``others`` are
    models that lend tensors; they stay open as long as the plan is used.
    """

    source: Model
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    values: Mapping[str, Scalar] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    changed: tuple[Changed, ...] = ()
    warnings: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    others: tuple[Model, ...] = ()

    @property
    def sources(self) -> tuple[Model, ...]:
        """Every model that the plan reads from, the main one first (a new model has no file of its own)."""
        return self.others if self.is_new else (self.source, *self.others)

    @property
    def is_new(self) -> bool:
        """Whether the plan began with an empty model, not with a file."""
        return self.source.origin.format == "new"

    def as_model(self) -> Model:
        """The model that is to be, for identification and further edits."""
        return replace(
            self.source, tensors=self.tensors, metadata=self.metadata, values=self.values, outside={}, warnings=()
        )

    def layout(self, file_format: str, hash_source: bool = False) -> Layout:
        """The file this plan becomes. Raises TargetError when the format cannot hold it."""
        metadata = self.final_metadata(file_format, dict.fromkeys(_HASH_WIDTHS, "") if hash_source else None)
        # Only the writer that is needed is imported: a command should start at once.
        if file_format == "safetensors":
            from lib_toolkit.formats.safetensors_out import safetensors_layout

            return safetensors_layout(self.tensors, metadata)
        if file_format == "ckpt":
            from lib_toolkit.formats.checkpoint_out import checkpoint_layout

            return checkpoint_layout(self.tensors, metadata, self.values)
        raise UsageError(f"{file_format!r} is not a format that can be written; choose safetensors or ckpt.")

    def predicted_size(self, file_format: str, hash_source: bool = False) -> int:
        """Bytes of the file that this plan becomes, exactly."""
        return self.layout(file_format, hash_source).size

    def final_metadata(self, file_format: str, hashes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The metadata as written: the source's own, ``format``, plain values, and where the model came from.

        Hash fields have a fixed width, so that the file's size is known before they are. AutoV3, the hash of what
        follows a safetensors header, is there for such a source only.
        """
        texts = dict(self.metadata)
        if file_format == "safetensors":
            for key, value in self.values.items():
                texts.setdefault(key, value if isinstance(value, str) else json.dumps(value))
            texts["format"] = "pt"
        texts[PROVENANCE] = json.dumps([*_history(self.metadata), self._provenance(hashes)], ensure_ascii=False)
        return texts

    def _provenance(self, hashes: Mapping[str, str | None] | None) -> dict[str, object]:
        entry: dict[str, object] = {"tool": "model-toolkit", "version": __version__}
        if not self.is_new:
            entry["source"] = self._source_entry(hashes)
        entry["operations"] = list(self.operations)
        if self.others:
            entry["parts"] = [{"name": _text(m.name), "size": m.origin.size} for m in self.others]
        return entry

    def _source_entry(self, hashes: Mapping[str, str | None] | None) -> dict[str, object]:
        origin = self.source.origin
        source: dict[str, object] = {"name": _text(origin.path.name), "size": origin.size}
        if hashes is not None:
            for name, width in _HASH_WIDTHS.items():
                if name == "autov3" and origin.format != "safetensors":
                    continue
                source[name] = (hashes.get(name) or "").ljust(width)
        return source


def plan_of(model: Model) -> Plan:
    """The plan that changes nothing: every tensor and entry of the state dict in use, as it is.

    What the result's formats cannot hold beside the state dict (tensors of other containers, objects that are
    not plain values) is listed as dropped.
    """
    plain: dict[str, Scalar] = {}
    dropped = [
        Dropped(key, nbytes(tensor), "outside the state dict in use" + _outside_kind(key))
        for key, tensor in model.outside.items()
    ]
    for key, value in model.values.items():
        if "." not in key and (value is None or isinstance(value, (bool, int, float, str))):
            plain[key] = value
        else:
            dropped.append(Dropped(key, 0, _why_not_kept(value), "value"))
    return Plan(
        source=model,
        tensors=dict(model.tensors),
        metadata=dict(model.metadata),
        values=plain,
        dropped=tuple(dropped),
        warnings=tuple(model.warnings),
    )


def drop(plan: Plan, reasons: Mapping[str, str]) -> Plan:
    """The plan without the tensors named in ``reasons``, each listed with its reason."""
    return replace(
        plan,
        tensors={key: tensor for key, tensor in plan.tensors.items() if key not in reasons},
        dropped=(
            *plan.dropped,
            *(Dropped(k, nbytes(plan.tensors[k]), why) for k, why in reasons.items() if k in plan.tensors),
        ),
    )


def file_format_of(path: Path, file_format: str | None = None) -> str:
    """The format to write: the one asked for, or that of the name's ending.

    Raises UsageError when the ending tells nothing or contradicts the format.
    """
    by_name = {".safetensors": "safetensors", ".sft": "safetensors", ".st": "safetensors"}
    by_name |= dict.fromkeys((".ckpt", ".pt", ".pth", ".bin"), "ckpt")
    named = by_name.get(path.suffix.lower())
    if named is None:
        raise UsageError(f"{path.name} must end in .safetensors or .ckpt, so that other programs know what it is.")
    if file_format is not None and file_format != named:
        raise UsageError(
            f"{path.name} ends in {path.suffix}, but the format asked for is {file_format}; make them agree."
        )
    return named


def _history(metadata: Mapping[str, str]) -> list[object]:
    try:
        entries = json.loads(metadata.get(PROVENANCE, "[]"))
    except (ValueError, RecursionError):
        return []
    return entries if isinstance(entries, list) else []


def source_of(metadata: Mapping[str, str]) -> tuple[str, int] | None:
    """Name and size of the file that a model was last written from by this tool, as its metadata tells them."""
    entry = next(reversed(_history(metadata)), None)
    source = entry.get("source") if isinstance(entry, dict) else None
    if not isinstance(source, dict):
        return None
    name, size = source.get("name"), source.get("size")
    return (name, size) if isinstance(name, str) and isinstance(size, int) else None


def _text(name: str) -> str:
    """A file name that may not be valid text, as metadata can hold it."""
    return name.encode("utf-8", "replace").decode()


def _why_not_kept(value: object) -> str:
    from lib_toolkit.formats.pickle_values import Placeholder

    if isinstance(value, Placeholder) and value.level == "refused":
        return "a tensor of a kind that cannot be read"
    if isinstance(value, Placeholder):
        return "not a tensor nor a plain value: only programs could use it"
    return "a value inside of others: beside the tensors only single values can be kept"


def _outside_kind(key: str) -> str:
    return " (optimizer state of the training run)" if key.startswith("optimizer") else ""
