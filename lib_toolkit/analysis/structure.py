"""Findings that names, shapes, metadata and the file's place tell: no value is read for them."""

from __future__ import annotations

from collections.abc import Mapping

from lib_toolkit.analysis.results import Finding, Remedy, Severity
from lib_toolkit.architectures import junk
from lib_toolkit.casting import Cast
from lib_toolkit.counting import counted
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.tensors import nbytes

_EXAMPLES = 5

_ABSENT: Mapping[str, tuple[str, str]] = {
    "unet": ("no-unet", "There is no UNet inside: the file makes no pictures until one is imported."),
    "vae": ("no-vae", "There is no VAE inside: choose one in the WebUI, or import one."),
    "text_encoder": ("no-text-encoder", "There is no text encoder inside: it has to come from another file."),
    "depth": ("no-depth", "There is no depth estimator inside: depth-guided pictures need one."),
    "controlnet": ("no-controlnet", "There is no ControlNet inside."),
}

_FOLDERS: Mapping[str, frozenset[str]] = {
    # Forge loads bare UNets as checkpoints.
    "stable-diffusion": frozenset({"checkpoint", "unet"}),
    "checkpoints": frozenset({"checkpoint"}),
    "unet": frozenset({"unet"}),
    "diffusion_models": frozenset({"unet"}),
    "vae": frozenset({"vae"}),
    "text_encoder": frozenset({"text_encoder"}),
    "text_encoders": frozenset({"text_encoder"}),
    "lora": frozenset({"lora"}),
    "loras": frozenset({"lora"}),
    "lycoris": frozenset({"lora"}),
    "controlnet": frozenset({"controlnet", "t2i_adapter", "ip_adapter", "lora"}),
    "embeddings": frozenset({"embedding"}),
    "hypernetworks": frozenset({"hypernetwork"}),
    "esrgan": frozenset({"upscaler"}),
    "components": frozenset({"unet", "vae", "text_encoder", "depth", "controlnet"}),
}
"""Folders of the WebUIs and ComfyUI, in lower case, and the kinds of files that belong into them."""

_KINDS: Mapping[str, tuple[str, str]] = {
    "checkpoint": ("a checkpoint", "Stable-diffusion"),
    "unet": ("a UNet", "Components"),
    "vae": ("a VAE", "VAE"),
    "text_encoder": ("a text encoder", "text_encoder"),
    "lora": ("a LoRA", "Lora"),
    "controlnet": ("a ControlNet", "ControlNet"),
    "t2i_adapter": ("a T2I-Adapter", "ControlNet"),
    "ip_adapter": ("an IP-Adapter", "ControlNet"),
    "embedding": ("an embedding", "embeddings"),
    "hypernetwork": ("a hypernetwork", "hypernetworks"),
    "upscaler": ("an upscaler", "ESRGAN"),
    "depth": ("a depth estimator", "Components"),
}
_SUFFIXES: Mapping[str, frozenset[str]] = {
    "safetensors": frozenset({".ckpt", ".pt", ".pth", ".bin"}),
    "pickled": frozenset({".safetensors", ".sft", ".st"}),
}
"""By what a file is: endings that say otherwise."""

_PREDICTION_ENTRIES = ("modelspec.prediction_type", "modelspec.predict_key")
_MIXED = ("sd2", "sdxl")


def structure_findings(model: Model, found: Identification) -> list[Finding]:
    """All findings of this module."""
    return [*_components(found), *_prediction(model, found), *_file(model, found), *_savings(model, found)]


def _components(found: Identification) -> list[Finding]:
    findings: list[Finding] = []
    for match in found.components:
        name = match.component.name
        if match.missing:
            text = f"{name} lacks {len(match.missing):,} of its {match.required:,} tensors."
            findings.append(Finding("incomplete", Severity.ERROR, text, keys=match.missing[:_EXAMPLES]))
        if match.wrong_shape:
            wrong = match.wrong_shape
            text = (
                f"Wrong shapes in {name}: {len(wrong):,} of {match.required:,} tensors, such as {wrong[0].key}, which "
                f"is {list(wrong[0].found)} instead of {list(wrong[0].expected)}."
            )
            keys = tuple(item.key for item in wrong[:_EXAMPLES])
            findings.append(Finding("wrong-shape", Severity.ERROR, text, keys=keys))
    findings += _companions(found)
    if found.renames:
        text = f"The text encoder has NovelAI's names ({counted(len(found.renames), 'key')} without text_model)."
        remedy = Remedy("Prune renames them.", "Loaders that know only the standard names find the text encoder.")
        findings.append(Finding("nai-names", Severity.WARNING, text, remedy, tuple(found.renames)[:_EXAMPLES]))
    return findings


def _companions(found: Identification) -> list[Finding]:
    """What a checkpoint lacks; a bare UNet needs its companions too, but it is what it claims to be."""
    present = {match.component.kind for match in found.components}
    if found.kind == "unet":
        wanted, severity = ["vae", "text_encoder"], Severity.INFO
    else:
        parts = found.architecture.parts if found.architecture is not None and found.kind == "checkpoint" else ()
        wanted, severity = list(dict.fromkeys(part.component.kind for part in parts)), Severity.WARNING
    return [
        Finding(_ABSENT[kind][0], severity, _ABSENT[kind][1])
        for kind in wanted
        if kind in _ABSENT and kind not in present
    ]


def _prediction(model: Model, found: Identification) -> list[Finding]:
    """Whether the model predicts v, where keys and shapes leave it open."""
    if found.kind not in ("checkpoint", "unet"):
        return []
    names = {part for left in found.leftovers.protected for part in left.key.split(".")}
    marked = bool(names & {"v_pred", "edm_vpred"})
    stated = next((model.metadata[entry] for entry in _PREDICTION_ENTRIES if entry in model.metadata), "").lower()
    by_name = any(word in model.name.lower() for word in ("vpred", "v-pred", "v_pred"))
    if marked and stated.startswith("eps"):
        text = "The v-prediction marker is in the file, but its metadata say that it predicts epsilon."
    elif not marked and "ztsnr" in names:
        text = "The file is marked for zero terminal SNR but not for v-prediction, which usually goes with it."
    elif not marked and (stated.startswith("v") or by_name):
        teller = "metadata say" if stated.startswith("v") else "name says"
        text = f"The file's {teller} that it predicts v, but the marker is missing: loaders may take it for epsilon."
    elif marked:
        return [Finding("v-pred", Severity.INFO, "The v-prediction marker is in the file.")]
    elif found.id is not None and found.id.startswith("sd2") and not stated:
        text = "The file has no marker: whether it predicts epsilon (SD2 base) or v cannot be told from it."
        return [Finding("prediction-unknown", Severity.INFO, text)]
    else:
        return []
    return [Finding("v-pred-doubtful", Severity.WARNING, text)]


def _file(model: Model, found: Identification) -> list[Finding]:
    findings: list[Finding] = []
    container = "safetensors" if model.origin.format == "safetensors" else "pickled"
    suffix = model.origin.path.suffix
    mislabelled = suffix.lower() in _SUFFIXES[container]
    if mislabelled:
        what = "safetensors" if container == "safetensors" else "a PyTorch pickle"
        text = f"The file is {what} although its name ends in {suffix}: loaders that go by names refuse it."
        better = ".safetensors" if container == "safetensors" else ".ckpt"
        remedy = Remedy(f"Rename it so that it ends in {better}.", "Every loader takes it for what it is.")
        findings.append(Finding("wrong-extension", Severity.WARNING, text, remedy))
    for warning in model.warnings:
        if not (mislabelled and "although its name ends in" in warning):
            findings.append(Finding("file-oddity", Severity.WARNING, warning))
    folder = next((p for p in reversed(model.origin.path.parts[:-1]) if p.lower() in _FOLDERS), None)
    if folder is not None and found.kind in _KINDS and found.kind not in _FOLDERS[folder.lower()]:
        what, home = _KINDS[found.kind]
        text = f"This is {what}, but it lies in the folder {folder}, where loaders take it for something else."
        remedy = Remedy(f"Move it to the folder {home}.", "The WebUI lists it where it belongs.")
        findings.append(Finding("wrong-folder", Severity.WARNING, text, remedy))
    return findings


def _savings(model: Model, found: Identification) -> list[Finding]:
    """What a prune would save, and what it would keep in doubt."""
    plan = plan_prune(model, found, Wishes())
    tensors = [left for left in plan.dropped if left.what == "tensor"]
    ema = [left for left in tensors if left.reason == junk.EMA]
    unknown = {left.key for left in found.leftovers.unknown}
    strange = [left for left in tensors if left.key in unknown]
    others = [left for left in tensors if left.reason != junk.EMA and left.key not in unknown]
    cast = [(key, tensor) for key, tensor in plan.tensors.items() if isinstance(tensor, Cast)]
    narrower = sum(nbytes(tensor.source) - nbytes(tensor) for _, tensor in cast)
    findings = []
    rows = (
        ("saving-ema", [left.key for left in ema], sum(left.bytes for left in ema), "an EMA copy of the UNet", None),
        ("saving-junk", [left.key for left in others], sum(left.bytes for left in others), "training leftovers", None),
        ("saving-precision", [key for key, _ in cast], narrower, "more precision than FP16 holds", "precision"),
    )
    for identity, keys, saved, what, wish in rows:
        if keys and saved:
            text = f"{saved:,} bytes are {what}, which pictures do not need (tensors: {len(keys):,})."
            remedy = Remedy("Prune the model.", f"Its tensors take {saved:,} bytes less.", wish)
            findings.append(Finding(identity, Severity.INFO, text, remedy, tuple(keys[:_EXAMPLES])))
    if strange:
        size = sum(left.bytes for left in strange)
        text = "Tensors that the architecture does not know and a prune leaves out: "
        text += f"{len(strange):,} ({counted(size, 'byte')})."
        remedy = Remedy("Prune the model, or convert it to keep them.", f"A prune takes {counted(size, 'byte')} less.")
        keys = [left.key for left in strange[:_EXAMPLES]]
        findings.append(Finding("saving-unknown", Severity.INFO, text, remedy, tuple(keys)))
    kept = [left for left in found.leftovers.unknown if left.key in plan.tensors and found.components]
    if kept:
        size = sum(left.bytes for left in kept)
        text = f"Tensors that the architecture does not know: {len(kept):,} ({counted(size, 'byte')})."
        remedy = Remedy("Leave them out if you know that they are junk.", f"{size:,} bytes less.", "drop_unknown")
        keys = [left.key for left in kept[:_EXAMPLES]]
        findings.append(Finding("unknown-tensors", Severity.INFO, text, remedy, tuple(keys)))
    return findings
