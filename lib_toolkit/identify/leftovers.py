"""Tensors that no component knows, sorted into protected, removable and unknown; and signs of quantisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib_toolkit.architectures import junk, prefixes
from lib_toolkit.dtypes import DType
from lib_toolkit.identify.evidence import Leftover, Leftovers, Match
from lib_toolkit.model import Model
from lib_toolkit.tensors import Stored, Tensor, nbytes

_FP8 = frozenset({DType.F8_E4M3, DType.F8_E5M2, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ})
_NF4_PARTS = (".absmax", ".quant_map", ".quant_state.", ".nested_")


@dataclass(frozen=True)
class Sorted:
    """The outcome: left-overs by class, and the keys of schedule buffers."""

    leftovers: Leftovers
    buffers: tuple[str, ...]


def sort_leftovers(model: Model, components: Sequence[Match], keep_ema: bool) -> Sorted:
    """Sort every tensor outside the components.

    EMA copies are listed as removable although they are a component too, unless ``keep_ema``: then the EMA
    copy is the only UNet in the file.
    """
    claimed = _claimed(components, keep_ema)
    left = {key: tensor for key, tensor in model.tensors.items() if key not in claimed}
    spans = _spans(model.tensors, claimed) if left else {}
    places = tuple(match.prefix for match in components if match.prefix)
    protected: list[Leftover] = []
    removable: list[Leftover] = []
    unknown: list[Leftover] = []
    buffers: list[str] = []
    for key, tensor in left.items():
        if junk.is_buffer(key, tensor.shape):
            buffers.append(key)
            continue
        place = next((prefix for prefix in places if key.startswith(prefix)), None)
        size = nbytes(tensor)
        marker = junk.protected_reason(key)
        if marker is not None and not key.startswith(prefixes.EMA):
            protected.append(Leftover(key, size, marker, _owner(key, place, components)))
            continue
        reason = junk.removable_reason(key) or _duplicate_reason(tensor, spans)
        if reason == junk.EMA and keep_ema and tensor.shape:
            unknown.append(Leftover(key, size, "EMA copy of something that is not in the file", place))
        elif reason is not None:
            removable.append(Leftover(key, size, reason, place))
        else:
            unknown.append(Leftover(key, size, "no known component has this tensor", place))
    return Sorted(Leftovers(tuple(protected), tuple(removable), tuple(unknown)), tuple(buffers))


def _claimed(components: Iterable[Match], keep_ema: bool) -> frozenset[str]:
    return frozenset(key for match in components if keep_ema or match.layout != "ema" for key in match.keys.values())


def _owner(key: str, place: str | None, components: Sequence[Match]) -> str | None:
    """The prefix of the component that a marker belongs to: where it stands, or, alone at the top, the UNet's."""
    if place is not None:
        return place
    if prefixes.known_prefix(key):
        return None
    owners: list[str] = [match.prefix for match in components if not match.prefix]
    if "." not in key or key.startswith("edm_vpred."):
        owners[:0] = [match.prefix for match in components if match.component.kind == "unet"]
    return owners[0] if owners else None


def _span(tensor: Tensor) -> tuple[int, int, DType, tuple[int, ...]] | None:
    if isinstance(tensor, Stored) and nbytes(tensor) > 0:
        return id(tensor.source), tensor.offset, tensor.dtype, tensor.shape
    return None


def _spans(tensors: Mapping[str, Tensor], claimed: Iterable[str]) -> dict[object, str]:
    return {span: key for key in claimed if (span := _span(tensors[key])) is not None}


def _duplicate_reason(tensor: Tensor, spans: Mapping[object, str]) -> str | None:
    """Only one and the same place in the file proves a duplicate without reading values."""
    known = spans.get(_span(tensor))
    return None if known is None else f"exact duplicate of {known}"


def quantisation(model: Model) -> str | None:
    """What kind of quantisation the file shows, in a few words; None where it shows none.

    fp8 weights without scales are a plain cast, not a quantisation.
    """
    names = [key for key in model.tensors if junk.is_scale(key)]
    for entry in junk.QUANTISED_METADATA:
        if entry in model.metadata:
            return f"quantised, says the file's header ({entry})"
    if not names:
        return None
    last = {key.rpartition(".")[2] for key in names}
    if any(part in key for key in names for part in _NF4_PARTS):
        return "4-bit (bitsandbytes)"
    if "SCB" in last:
        return "8-bit (bitsandbytes)"
    if last & {"wscales", "wcscales", "smooth_factor"}:
        return "4-bit (Nunchaku)"
    if last & {"qweight", "qzeros"}:
        return "packed integers (GPTQ or AWQ)"
    if "comfy_quant" in last:
        return "quantised layers (ComfyUI)"
    if any(tensor.dtype in _FP8 for tensor in model.tensors.values()):
        return "fp8 with scales"
    return f"quantised layers ({', '.join(sorted(last)[:3])})"
