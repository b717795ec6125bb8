"""Sentences about an identified model: what shapes cannot decide, and what is missing to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lib_toolkit.architectures.lora import LoraInfo
from lib_toolkit.counting import counted
from lib_toolkit.identify.evidence import Leftover, Match
from lib_toolkit.identify.verdict import Verdict

_V_PREDICTION = frozenset({"v_pred", "edm_vpred"})

_UNDECIDED: Mapping[str, str] = {
    "sd1": "SD 1.4, 1.5 and NAI have the same keys and shapes: which one it is cannot be told from them.",
    "sdxl": "SDXL base, Turbo, Lightning, Pony, Illustrious and others have the same keys and shapes: which one it "
    "is cannot be told from them.",
    "vae-kl-4ch": "The VAEs of SD1, SD2 and SDXL have the same keys and shapes: only their values differ.",
}
_PREDICTION: Mapping[str, str] = {
    "sd2": "SD2 base (epsilon) and SD2 v (v-prediction) have the same keys and shapes, and the file has no marker: "
    "which one it is cannot be told.",
    "sdxl": "The file has no v-prediction marker: nearly all SDXL models without one predict epsilon.",
}
_COMPANIONS: Mapping[str, str] = {
    "unet": "no UNet inside: it makes no pictures until one is imported.",
    "vae": "no VAE inside: choose one in the WebUI, or import one.",
    "text_encoder": "no text encoder inside: it needs one from another file.",
    "depth": "no depth estimator inside: depth-guided pictures need one.",
    "controlnet": "no ControlNet inside.",
}


def notes(verdict: Verdict, matches: Sequence[Match], protected: Iterable[Leftover], ema_alone: bool) -> list[str]:
    """Facts that need no action."""
    own = verdict.id if verdict.kind in ("checkpoint", "unet") else None
    ids = {own, *(match.component.id for match in matches if match.component.kind == "vae")}
    found = [_UNDECIDED[identity] for identity in sorted(filter(None, ids)) if identity in _UNDECIDED]
    marked = any(_V_PREDICTION & set(entry.key.split(".")) for entry in protected)
    if marked:
        found.append("The v-prediction marker is in the file.")
    elif own is not None and own in _PREDICTION:
        found.append(_PREDICTION[own])
    if ema_alone:
        found.append("The only UNet in the file is an EMA copy: it is kept.")
    for match in matches:
        if match.missing_optional and match.complete:
            lacks = counted(len(match.missing_optional), "tensor")
            found.append(f"{match.component.name} lacks {lacks} that nothing needs (optional).")
    return found


def warnings(verdict: Verdict, matches: Sequence[Match], renamed: int) -> list[str]:
    """What stands in the way of using the file."""
    found: list[str] = []
    kinds = {match.component.kind for match in matches}
    absent = dict.fromkeys(part.component.kind for part in verdict.absent)
    if verdict.kind == "unet" and not absent:
        absent = dict.fromkeys(("vae", "text_encoder"))
    found += [_COMPANIONS[kind] for kind in absent if kind in _COMPANIONS and kind not in kinds]
    for match in matches:
        name, total = match.component.name, match.required
        if match.missing:
            found.append(f"{name} lacks {len(match.missing):,} of its {total:,} tensors.")
        if match.wrong_shape:
            found.append(f"{name} has {counted(len(match.wrong_shape), 'tensor')} of the wrong shape.")
    if renamed:
        found.append(
            f"The text encoder is named as NovelAI does ({counted(renamed, 'key')} without text_model); many loaders "
            "need the standard names."
        )
    return found


def lora_notes(lora: LoraInfo) -> list[str]:
    """What is to be said of an adapter."""
    found = [f"Algorithms: {', '.join(lora.algorithms)}; names as {lora.naming} writes them."]
    if lora.candidates:
        found.append(f"Its modules fit {' and '.join(lora.candidates)} alike: the base cannot be told.")
    elif lora.base is None:
        found.append("The base model is not known: its modules fit no known one.")
    elif lora.resolved and lora.resolved < lora.modules:
        found.append(f"{lora.modules - lora.resolved:,} of {lora.modules:,} modules are not those of the base.")
    if not lora.alpha:
        found.append("There is no alpha: the strength is that of the rank itself.")
    return found


def lora_warnings(lora: LoraInfo) -> list[str]:
    """What stands in the way of using an adapter."""
    if not lora.lame:
        return []
    return [
        f"Modules that are not whole: {lora.lame:,} of {lora.modules:,} ({lora.lacking} missing). They change nothing, "
        "or make programs refuse the file; get it again."
    ]
