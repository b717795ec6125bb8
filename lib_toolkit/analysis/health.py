"""Findings that the values tell: what is not a number, not there, there twice, or no longer fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lib_toolkit.analysis import metric as metrics
from lib_toolkit.analysis.results import Finding, Fingerprint, Metric, Remedy, Severity, TensorHealth
from lib_toolkit.analysis.values import Facts
from lib_toolkit.edits.repair import PositionIds, look_at_position_ids
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model
from lib_toolkit.tensors import Filled, numel

_EXAMPLES = 5
_TINY = 1024
"""Elements below which equal tensors mean nothing."""

FAR = 0.05
"""Relative distance beyond which an EMA copy no longer belongs to the UNet beside it; trained ones lie closer."""

_MERGED = ("sd_merge_", "modelspec.merged_from")


def value_findings(
    model: Model,
    found: Identification,
    facts: Mapping[str, Facts],
    metric: Metric,
    fingerprints: Sequence[Fingerprint],
) -> list[Finding]:
    """All findings of this module."""
    ids = position_ids(model, found, facts)
    merged = merge_signs(model, ids)
    return [
        *_numbers(found, facts),
        *_zeros(found, facts),
        *_equals(found, facts),
        *_ids(ids),
        *_ema(found, facts, merged),
        *vae_findings(found, metric, fingerprints, merged),
    ]


def position_ids(model: Model, found: Identification, facts: Mapping[str, Facts]) -> list[PositionIds]:
    """The state of each position_ids tensor whose bytes the pass kept."""
    return [
        look_at_position_ids(key, Filled(facts[key].data, model.tensors[key].dtype, model.tensors[key].shape))
        for key in found.position_ids
        if key in facts and facts[key].data
    ]


def merge_signs(model: Model, ids: Sequence[PositionIds]) -> str | None:
    """What tells that the model was made by merging, None where nothing does."""
    entry = next((key for key in model.metadata if key.startswith(_MERGED)), None)
    if entry is not None:
        return f"its metadata tell of a merge ({entry})"
    return "its position ids are broken as merging does" if any(one.fractions for one in ids) else None


def _numbers(found: Identification, facts: Mapping[str, Facts]) -> list[Finding]:
    kept = {*found.buffers, *(left.key for left in found.leftovers.protected)}
    findings: list[Finding] = []
    rows: tuple[tuple[str, Severity, str, Callable[[TensorHealth], int]], ...] = (
        ("nan", Severity.ERROR, "are not numbers (NaN)", lambda h: h.nan),
        ("infinity", Severity.ERROR, "are infinite", lambda h: h.infinite),
        ("fp16-overflow", Severity.WARNING, "FP16 cannot hold (its largest is 65,504)", lambda h: h.beyond_fp16),
    )
    for identity, severity, what, count in rows:
        bad = {key: n for key, fact in facts.items() if fact.health is not None and (n := count(fact.health))}
        if identity == "fp16-overflow":
            bad = {key: n for key, n in bad.items() if key not in kept}
        if not bad:
            continue
        text = f"Values that {what}: {sum(bad.values()):,}, in {len(bad):,} of {len(facts):,} tensors"
        text += "; pictures come out black or as noise." if severity is Severity.ERROR else "."
        remedy = _number_remedy(identity, found, bad)
        findings.append(Finding(identity, severity, text, remedy, tuple(bad)[:_EXAMPLES]))
    return findings


def _number_remedy(identity: str, found: Identification, bad: Mapping[str, int]) -> Remedy | None:
    if identity == "fp16-overflow":
        return Remedy(
            "Keep these tensors as they are, or choose bf16.", "A prune keeps the type of such tensors itself."
        )
    removable = {left.key for left in found.leftovers.removable}
    if bad.keys() <= removable:
        return Remedy("Prune the model.", "They are all in tensors that are of no use for pictures, which go.")
    inside = found.component_of()
    if all(key in inside and inside[key].component.kind == "vae" for key in bad):
        return Remedy("Replace the VAE.", "They are all in the VAE; with another one the model works.", "replace_vae")
    return Remedy("Get the file again, from its source.", "Values that are lost cannot be brought back.")


def _zeros(found: Identification, facts: Mapping[str, Facts]) -> list[Finding]:
    """Tensors of zeros. Schedule buffers may be zero (logvar is)."""
    health = {key: fact.health for key, fact in facts.items() if fact.health is not None and key not in found.buffers}
    zero = [key for key, one in health.items() if one.count and one.zero == one.count]
    if not zero:
        return []
    empty = sum(health[key].count for key in zero)
    whole = sum(one.count for one in health.values())
    text = f"Tensors of nothing but zeros: {len(zero):,} of {len(health):,}"
    if 2 * empty > whole:
        remedy = Remedy("Get the file again.", "Copies and downloads that break off leave such files behind.")
        text = f"{text}, {100 * empty / whole:.0f} % of all values: the weights are not in this file."
        return [Finding("all-zero", Severity.ERROR, text, remedy, tuple(zero[:_EXAMPLES]))]
    large = any(health[key].count >= _TINY for key in zero) and found.kind != "lora"
    severity = Severity.WARNING if large else Severity.INFO
    return [Finding("all-zero", severity, f"{text}; they have no effect.", keys=tuple(zero[:_EXAMPLES]))]


def _equals(found: Identification, facts: Mapping[str, Facts]) -> list[Finding]:
    """Large tensors of equal values, EMA copies and constant ones aside."""
    copies = {key for match in found.components if match.layout == "ema" for key in match.keys.values()}
    groups: dict[tuple[object, ...], list[str]] = {}
    for key, fact in facts.items():
        if fact.constant or key in copies or key in found.buffers:
            continue
        for record in fact.records:
            if math.prod(record.part.shape) >= _TINY:
                same = groups.setdefault((record.part.shape, record.type, record.digest, record.beyond), [])
                if key not in same:
                    same.append(key)
    equal = [keys for keys in groups.values() if len(keys) > 1]
    if not equal:
        return []
    count = sum(len(keys) - 1 for keys in equal)
    text = (
        f"Tensors that hold the very values of another one: {count:,}, such as {equal[0][1]} (those of {equal[0][0]})."
    )
    inside = found.component_of()
    odd = any(inside.get(keys[0]) is inside.get(keys[1]) and keys[0] in inside for keys in equal)
    severity = Severity.WARNING if odd and found.kind != "lora" else Severity.INFO
    return [Finding("equal-tensors", severity, text, keys=tuple(key for keys in equal for key in keys)[:_EXAMPLES])]


def _ids(ids: Sequence[PositionIds]) -> list[Finding]:
    findings = []
    for one in ids:
        if one.right:
            continue
        severity = Severity.WARNING if one.lost else Severity.INFO
        remedy = Remedy("Rewrite them to 0…76.", "Prompts are read as trained; pictures change slightly.", "fix_clip")
        findings.append(Finding("position-ids", severity, one.sentence(), remedy if one.lost else None, (one.key,)))
    return findings


def ema_distance(found: Identification, facts: Mapping[str, Facts]) -> float | None:
    """How far the EMA copy lies from the UNet beside it: |EMA - UNet| / |UNet| over their samples; None without."""
    unets = [match for match in found.components if match.component.kind == "unet"]
    ema = next((match for match in unets if match.layout == "ema"), None)
    unet = next((match for match in unets if match.layout != "ema"), None)
    if ema is None or unet is None:
        return None
    apart = size = 0.0
    for native, key in sorted(ema.keys.items()):
        other = unet.keys.get(native)
        if other is None or key not in facts or other not in facts:
            continue
        pairs = list(zip(facts[key].sample, facts[other].sample, strict=False))
        apart += math.fsum((a - b) ** 2 for a, b in pairs)
        size += math.fsum(b**2 for _, b in pairs)
    return math.sqrt(apart / size) if size > 0 and math.isfinite(apart / size) else None


def _ema(found: Identification, facts: Mapping[str, Facts], merged: str | None) -> list[Finding]:
    distance = ema_distance(found, facts)
    if distance is None or (distance <= FAR and merged is None):
        return []
    remedy = Remedy("Prune the model.", "The EMA copy goes; pictures are made with the UNet.")
    if distance > FAR:
        text = (
            f"The EMA copy lies {100 * distance:.0f} % from the UNet beside it (trained ones lie within "
            f"{100 * FAR:.0f} %): it belongs to another model, as after a merge."
        )
    else:
        text = f"The EMA copy may not belong to the UNet beside it: {merged}, and merging leaves EMA copies behind."
    return [Finding("ema-far", Severity.WARNING, text, remedy)]


def vae_findings(
    found: Identification, metric: Metric, fingerprints: Sequence[Fingerprint], merged: str | None
) -> list[Finding]:
    """A VAE that is no known one, in a model that was merged; only where the usual VAEs' figures are known."""
    if merged is None or metric.vae is None or not any(m.component.cls in _USUAL for m in found.components):
        return []
    vaes = (match for match in found.components if match.component.kind == "vae")
    match = next((match for match in vaes if metrics.known_figures(match.component.cls)), None)
    if match is None or metrics.known_name(match.component.cls, metric.vae) is not None or _named(match, fingerprints):
        return []
    text = (
        f"The VAE ({metric.vae:04d}) is none of the known ones, and {merged}: merging breaks VAEs, and colours turn "
        "pale or spots appear."
    )
    remedy = Remedy("Replace the VAE.", "Colours become those of the VAE that is imported.", "replace_vae")
    return [Finding("vae-merged", Severity.WARNING, text, remedy)]


_USUAL = ("UNET-v1", "UNET-v1-Pix2Pix", "UNET-v2", "UNET-v2-Depth", "UNET-v1-Demo")
"""UNets whose usual VAEs are all among the known figures."""


def _named(match: Match, fingerprints: Sequence[Fingerprint]) -> bool:
    return any(
        one.names for one in fingerprints if one.prefix == match.prefix and one.component == match.component.name
    )


def keepable(model: Model, found: Identification) -> set[str]:
    """Position ids small enough to be kept as bytes while the file passes by."""
    return {key for key in found.position_ids if 0 < numel(model.tensors[key]) <= _TINY and _countable(model, key)}


def _countable(model: Model, key: str) -> bool:
    dtype = model.tensors[key].dtype
    return dtype.castable or dtype.kind == "int"
