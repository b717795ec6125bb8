"""Fingerprints: one short text for the values of a component, whatever file, layout, order or precision they are in.

Definition, version 1 (``mtk1``). Take the component's tensors in canonical form (``lib_toolkit.layouts`` says how
they are called, split, turned and squeezed). For each tensor make the line

    ["<canonical key>",[<canonical shape>],"F16","<sha256 of the values>"]

as JSON in ASCII without spaces. The values are rounded to FP16 (to nearest, ties to even; finite values from 65,520 on
become infinite), every NaN is 0x7e00, -0 is kept, in C order, two bytes each, little-endian. Tensors that are no plain
floats (integers, booleans, 8-bit floats, packed types) have the stored type's name instead of ``F16`` and the
sha256 of their stored bytes. Where finite values became infinite, two more items follow: the stored type's name, and
the sha256 over all of these values in order, each as its flat index (8 bytes, little-endian) and its stored bytes.

Sort the lines by canonical key (by code points), end each with a line feed, put ``mtk1 component`` and a line feed
in front, and hash that with sha256: ``mtk1:`` and the first 32 hexadecimal digits are the fingerprint.

- ``value`` covers what the component computes with. ``rest`` covers in the same way (beginning with ``mtk1 rest``)
  the tensors that files of the same component hold or lack at will: position ids, ``logit_scale``, the text
  projection, the last layer of SD2's text encoder (number 23), and of SDXL's two the last layer (11 and 31) with the
  final norm behind it. It is None where there are none.
- A file's fingerprint hashes, in this order: ``mtk1 file``, then for each component the line
  ["<class>","<layout: ema or empty>","<value>","<rest or empty>"], sorted, then for every tensor of the state dict
  that is in no component its line as above, by its own key, sorted by it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from lib_toolkit.analysis.results import Fingerprint
from lib_toolkit.analysis.values import Part, Record
from lib_toolkit.identify import Identification, Match
from lib_toolkit.layouts import to_canonical
from lib_toolkit.model import Model
from lib_toolkit.nodes import Reshaped, Rows, Transposed
from lib_toolkit.tensors import Tensor, numel

VERSION = "mtk1"
_DIGITS = 32

_ALWAYS_REST = re.compile(r"(.*\.)?position_ids|logit_scale|text_projection(\.weight)?")
_REST: Mapping[str, re.Pattern[str]] = {
    "CLIP-v2": re.compile(r"text_model\.encoder\.layers\.23\..*"),
    "CLIP-XL-L": re.compile(r"text_model\.(encoder\.layers\.11|final_layer_norm)\..*"),
    "CLIP-XL-G": re.compile(r"text_model\.(encoder\.layers\.31|final_layer_norm)\..*"),
    "CLIP-XL-L-Demo": re.compile(r"text_model\.(encoder\.layers\.2|final_layer_norm)\..*"),
    "CLIP-XL-G-Demo": re.compile(r"text_model\.(encoder\.layers\.2|final_layer_norm)\..*"),
}
"""By class: canonical keys that may be absent, beside those of ``_ALWAYS_REST``."""


def parts_by_key(model: Model, found: Identification) -> dict[str, tuple[Part, ...]]:
    """For each tensor of the file the canonical tensors that are made of it.

    ``Part.owner`` is the index of the component in ``found.components``; a tensor outside all components is one part
    of its own.
    """
    names = {id(tensor): key for key, tensor in model.tensors.items()}
    parts: dict[str, list[Part]] = {key: [] for key in model.tensors}
    for index, match in enumerate(found.components):
        for canonical, tensor in to_canonical(match, model.tensors).items():
            origin, start, stop, turned = _trace(tensor)
            parts[names[id(origin)]].append(Part(canonical, tensor.shape, start, stop, turned, index))
    claimed = found.component_of()
    return {
        key: tuple(own) if key in claimed else (Part(key, tensor.shape, 0, numel(tensor)),)
        for (key, own), tensor in zip(parts.items(), model.tensors.values(), strict=True)
    }


def _trace(tensor: Tensor) -> tuple[Tensor, int, int, bool]:
    """The tensor of the file behind a canonical one, the range of its elements, and whether it is turned."""
    if isinstance(tensor, Rows):
        origin, start, _, turned = _trace(tensor.source)
        row = math.prod(tensor.source.shape[1:])
        return origin, start + tensor.first * row, start + tensor.last * row, turned
    if isinstance(tensor, Reshaped):
        return _trace(tensor.source)
    if isinstance(tensor, Transposed):
        return tensor.source, 0, numel(tensor), True
    return tensor, 0, numel(tensor), False


def fingerprints(
    found: Identification, records: Iterable[Record], names: Mapping[str, str]
) -> tuple[tuple[Fingerprint, ...], str]:
    """The fingerprint of each component, and that of the file. ``names`` by fingerprint, as users gave them."""
    owned: list[list[Record]] = [[] for _ in found.components]
    others: list[Record] = []
    for record in records:
        (others if record.part.owner is None else owned[record.part.owner]).append(record)
    made = tuple(component(match, own, names) for match, own in zip(found.components, owned, strict=True))
    return made, _file(found, made, others)


def component(match: Match, records: Sequence[Record], names: Mapping[str, str]) -> Fingerprint:
    """The fingerprint of one component out of the records of all of its tensors."""
    extra = _REST.get(match.component.cls)

    def in_rest(key: str) -> bool:
        return _ALWAYS_REST.fullmatch(key) is not None or (extra is not None and extra.fullmatch(key) is not None)

    value = _hash("component", _lines(r for r in records if not in_rest(r.part.key)))
    rest = [record for record in records if in_rest(record.part.key)]
    return Fingerprint(
        component=match.component.name,
        cls=match.component.cls,
        prefix=match.prefix,
        value=value,
        rest=_hash("rest", _lines(rest)) if rest else None,
        names=tuple(dict.fromkeys(table[value] for table in (SHIPPED, names) if value in table)),
    )


def _file(found: Identification, made: Sequence[Fingerprint], others: Iterable[Record]) -> str:
    lines = sorted(
        _json([one.cls, "ema" if match.layout == "ema" else "", one.value, one.rest or ""])
        for match, one in zip(found.components, made, strict=True)
    )
    return _hash("file", [*lines, *_lines(others)])


def _lines(records: Iterable[Record]) -> list[str]:
    return [_line(record) for record in sorted(records, key=lambda record: record.part.key)]


def _line(record: Record) -> str:
    beyond = [record.stored, record.beyond] if record.beyond else []
    return _json([record.part.key, list(record.part.shape), record.type, record.digest, *beyond])


def _json(items: list[object]) -> str:
    return json.dumps(items, separators=(",", ":"))


def _hash(what: str, lines: Iterable[str]) -> str:
    whole = hashlib.sha256(f"{VERSION} {what}\n".encode())
    for line in lines:
        whole.update(f"{line}\n".encode())
    return f"{VERSION}:{whole.hexdigest()[:_DIGITS]}"


SHIPPED: Mapping[str, str] = {}
"""Names of fingerprints that come with the program; only values that were computed from the published files."""
