"""Tensors that are no component's weights: markers and scales, training left-overs, schedule buffers.

Names come from the programs that write them: ldm and sgm (schedules, EMA, losses), Lightning (optimizer state),
ComfyUI (markers, scaled fp8), bitsandbytes, GPTQ and Nunchaku (quantised layers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SCHEDULE: tuple[str, ...] = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""The noise schedule that ldm registers as buffers, [1000] each."""

BUFFERS: frozenset[str] = frozenset(
    {*SCHEDULE, "logvar", "lvlb_weights", "scale_factor", "denoiser.sigmas", "model.model_sampling.sigmas"}
)
"""All buffers of a diffusion model's schedule, by whole key; vectors or single numbers."""

_MARKERS = {
    "v_pred": "marks a v-prediction model",
    "ztsnr": "marks a model trained to zero terminal SNR",
    "edm_mean": "EDM latent statistics",
    "edm_std": "EDM latent statistics",
    "scaled_fp8": "marks scaled fp8 weights",
    "logit_scale": "scale of the contrastive head",
    "lora_controlnet": "marks a Control-LoRA",
    "__index_timestep_zero__": "marks an edit model",
    "__x0__": "marks an x0-prediction model",
}
_SCALES = frozenset(
    {
        "scale_weight",
        "scale_input",
        "weight_scale",
        "weight_scale_2",
        "input_scale",
        "comfy_quant",
        "absmax",
        "quant_map",
        "SCB",
        "weight_format",
        "qweight",
        "qzeros",
        "scales",
        "wscales",
        "wcscales",
        "wtscale",
        "smooth_factor",
        "smooth_factor_orig",
        "g_idx",
    }
)
_SCALE_PARTS = re.compile(r"\.(?:nested_|quant_state\.|(?:quant_map|absmax)(?:\.|$))")


EMA = "EMA copy, used only for training further"
_OPTIMIZER = "optimizer state, used only for training further"
_TRAINER = "trainer state, used only for training further"
_LOSS = "loss network, used only for training"

REMOVABLE_PREFIXES: Mapping[str, str] = {
    "model_ema.": EMA,
    "unet_ema.": EMA,
    "ema_model.": EMA,
    "loss.": _LOSS,
    "first_stage_model.loss.": _LOSS,
    "optimizer.": _OPTIMIZER,
    "optimizer_states.": _OPTIMIZER,
    "lr_schedulers.": _TRAINER,
    "callbacks.": _TRAINER,
    "loops.": _TRAINER,
    "amp_scaler.": _TRAINER,
}
"""Beginning of a key to the reason why it is of no use for making pictures."""

REMOVABLE_PARTS: Mapping[str, str] = {
    "lpips": _LOSS,
    "perceptual_loss": _LOSS,
    "discriminator": _LOSS,
    "exp_avg": _OPTIMIZER,
    "exp_avg_sq": _OPTIMIZER,
}
"""A whole dotted part of a key to the reason."""

_PREFIXES = tuple(REMOVABLE_PREFIXES)
_PARTS = re.compile(r"(?:^|\.)(" + "|".join(REMOVABLE_PARTS) + r")(?:\.|$)")

QUANTISED_METADATA: tuple[str, ...] = ("_quantization_metadata", "quantization", "quantization_config")
"""Header entries that say that the weights are quantised."""


def protected_reason(key: str) -> str | None:
    """Why a tensor gives others their meaning and must stay with them, None where it does not."""
    if key.startswith("edm_vpred."):
        return "EDM noise range of a v-prediction model"
    last = key.rpartition(".")[2]
    if last in _MARKERS:
        return _MARKERS[last]
    return "belongs to a quantised layer" if is_scale(key) else None


def is_scale(key: str) -> bool:
    """Whether the tensor belongs to a quantised layer."""
    last = key.rpartition(".")[2]
    return last == "scaled_fp8" or last in _SCALES or _SCALE_PARTS.search(key) is not None


def layer_of_scale(key: str) -> str:
    """The layer (key up to its last part) whose weight such a tensor belongs to."""
    for part in (".weight.nested_", ".weight.quant_state.", ".weight.quant_map", ".weight.absmax"):
        if part in key:
            return key.partition(part)[0]
    return key.rpartition(".")[0]


def removable_reason(key: str) -> str | None:
    """Why a tensor is of no use for making pictures, None where no rule says so."""
    if key.startswith(_PREFIXES):
        return next(reason for prefix, reason in REMOVABLE_PREFIXES.items() if key.startswith(prefix))
    part = _PARTS.search(key)
    return REMOVABLE_PARTS[part.group(1)] if part else None


def is_buffer(key: str, shape: tuple[int, ...]) -> bool:
    """Whether the tensor is part of a diffusion model's noise schedule."""
    return len(shape) <= 1 and key in BUFFERS
