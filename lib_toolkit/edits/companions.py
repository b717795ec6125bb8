"""What belongs to a component beside its weights, and goes where it goes: markers, scales, entries of the header."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lib_toolkit.architectures import junk
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model

LAYER_TABLE = "_quantization_metadata"
"""Header entry in which ComfyUI lists quantised layers by their full names: JSON with a table ``layers``."""

_TOP_LEVEL = frozenset({"v_pred", "ztsnr", "edm_mean", "edm_std"})
_TOP_LEVEL_PARTS = ("edm_vpred.",)
"""Markers that loaders look for at the top level of a file, wherever the UNet stands."""


def companions(found: Identification, match: Match) -> dict[str, str]:
    """File keys of what belongs to a component, each with its bare name (top-level markers keep theirs)."""
    unets = {other.prefix for other in found.components if other.component.kind == "unet"}
    named: dict[str, str] = {}
    for left in found.leftovers.protected:
        if _is_top_level(left.key):
            # Of a UNet and its EMA copy either may count as the owner: the marker tells of both.
            if match.component.kind == "unet" and left.belongs_to in unets:
                named[left.key] = left.key
        elif left.belongs_to == match.prefix:
            named[left.key] = left.key[len(match.prefix) :]
    return named


def placed(bare: str, prefix: str) -> str:
    """The key of a companion of a component that stands under ``prefix``."""
    return bare if _is_top_level(bare) else prefix + bare


def _is_top_level(key: str) -> bool:
    return key in _TOP_LEVEL or key.startswith(_TOP_LEVEL_PARTS)


def quantised(model: Model, found: Identification, match: Match) -> bool:
    """Whether this component has quantised layers. A header that does not say which layers counts for all of them."""
    if any(junk.is_scale(key) for key in companions(found, match)):
        return True
    if any(entry in model.metadata for entry in junk.QUANTISED_METADATA if entry != LAYER_TABLE):
        return True
    if LAYER_TABLE not in model.metadata:
        return False
    layers = _layers(model.metadata)
    return not layers or any(name.startswith(match.prefix) for name in layers)


def moved_header(
    target: Mapping[str, str], target_prefix: str, source: Mapping[str, str], source_prefix: str
) -> dict[str, str]:
    """The target's metadata with the source's quantised layers in the place of its own, under the target's prefix.

    Everything else in the target's metadata stays as it is; a table that cannot be read is left alone.
    """
    own = _layers(target)
    kept = {name: value for name, value in own.items() if not name.startswith(target_prefix)}
    new = {
        target_prefix + name[len(source_prefix) :]: value
        for name, value in _layers(source).items()
        if name.startswith(source_prefix)
    }
    if len(kept) == len(own) and not new:
        return dict(target)
    metadata = {key: value for key, value in target.items() if key != LAYER_TABLE}
    if kept or new:
        metadata[LAYER_TABLE] = json.dumps({**_table(source), **_table(target), "layers": {**kept, **new}})
    return metadata


def _layers(metadata: Mapping[str, str]) -> dict[str, object]:
    layers = _table(metadata).get("layers")
    return dict(layers) if isinstance(layers, dict) else {}


def _table(metadata: Mapping[str, str]) -> dict[str, object]:
    try:
        table = json.loads(metadata.get(LAYER_TABLE, "null"))
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
