"""Hashes that a file states about itself, beside the real ones.

``sshs_model_hash`` (sd-scripts, additional networks) and ``modelspec.hash_sha256`` (model specification 1.0.1, with
0x in front) are the sha256 of all bytes behind the safetensors header: AutoV3 in full. ``sshs_legacy_hash`` is the
legacy hash of the file as it was before its last metadata were added; where it differs from that of the file, this
says nothing. The hashes in this tool's own history are those of the sources, not of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from lib_toolkit.analysis.results import Finding, Severity
from lib_toolkit.hashing import FileHashes
from lib_toolkit.plan import PROVENANCE

_DATA_HASHES = ("sshs_model_hash", "modelspec.hash_sha256")
_LEGACY = "sshs_legacy_hash"
_SOURCE_HASHES = ("sha256", "autov2", "autov3", "legacy")
_LENGTH = 128
_SHOWN = 18


def embedded_hashes(
    metadata: Mapping[str, str], hashes: FileHashes | None, data_sha256: str | None
) -> dict[str, tuple[str, bool | None]]:
    """Each stated hash by the name of its entry, and whether it is right; None where that cannot be told.

    ``data_sha256``: of all bytes behind the header, None where it was not computed or there is no such header.
    """
    stated: dict[str, tuple[str, bool | None]] = {}
    for name in _DATA_HASHES:
        if value := metadata.get(name, "")[:_LENGTH]:
            plain = value.strip().lower().removeprefix("0x")
            stated[name] = (value, None if data_sha256 is None else plain == data_sha256)
    if value := metadata.get(_LEGACY, "")[:_LENGTH]:
        agrees = hashes is not None and value.strip().lower() == hashes.legacy
        stated[_LEGACY] = (value, True if agrees else None)
    return {**stated, **_history(metadata)}


def _history(metadata: Mapping[str, str]) -> dict[str, tuple[str, bool | None]]:
    try:
        entries = json.loads(metadata.get(PROVENANCE, "[]"))
    except (ValueError, RecursionError):
        return {}
    stated: dict[str, tuple[str, bool | None]] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        source = entry.get("source") if isinstance(entry, dict) else None
        if not isinstance(source, dict):
            continue
        for name in _SOURCE_HASHES:
            value = source.get(name)
            if isinstance(value, str) and value.strip():
                stated[f"{PROVENANCE}[{number}].source.{name}"] = (value.strip()[:_LENGTH], None)
    return stated


def disagreements(stated: Mapping[str, tuple[str, bool | None]], data_sha256: str | None) -> list[Finding]:
    """A finding for each stated hash that is wrong."""
    return [
        Finding(
            "hash-disagrees",
            Severity.WARNING,
            f"The metadata's {name} is {_short(value)}, but the tensors' hash is {(data_sha256 or '')[:16]}…: they "
            "were changed after it was written, or the metadata come from another file.",
            keys=(name,),
        )
        for name, (value, agrees) in stated.items()
        if agrees is False
    ]


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
