"""Under which prefixes components stand in files."""

from __future__ import annotations

MAIN = "model.diffusion_model."
EMA = "model_ema.diffusion_model"
"""No dot at the end: EMA keys have lost all their dots."""

VAE = "first_stage_model."
CLIP_V1 = "cond_stage_model.transformer."
CLIP_V2 = "cond_stage_model.model."
CLIP_XL_L = "conditioner.embedders.0.transformer."
CLIP_XL_G = "conditioner.embedders.1.model."
CLIP_REFINER = "conditioner.embedders.0.model."
DEPTH = "depth_model.model."
CONTROL = "control_model."

KNOWN: tuple[str, ...] = (
    MAIN,
    EMA,
    VAE,
    CLIP_V1,
    CLIP_V2,
    CLIP_XL_L,
    CLIP_XL_G,
    CLIP_REFINER,
    DEPTH,
    CONTROL,
    "vae.",
    "diffusion_model.",
    "model.model.",
    "model.",
    "net.",
    "unet.",
    "text_encoder.",
    "text_encoder_2.",
    "te.",
    "te1.",
    "te2.",
    "embedder.model.",
    "conditioner.embedders.0.open_clip.model.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.clip_h.transformer.",
    "text_encoders.t5xxl.transformer.",
)
"""All prefixes that are stripped before keys are compared."""


def _by_head() -> dict[str, tuple[str, ...]]:
    heads: dict[str, list[str]] = {}
    for prefix in KNOWN:
        heads.setdefault(prefix.partition(".")[0], []).append(prefix)
    return {head: tuple(sorted(prefixes, key=len, reverse=True)) for head, prefixes in heads.items()}


_BY_HEAD = _by_head()


def known_prefix(key: str) -> str:
    """The longest known prefix of a key, empty where it has none."""
    for prefix in _BY_HEAD.get(key.partition(".")[0], ()):
        if key.startswith(prefix):
            return prefix
    return ""
