"""Reports made by hand from real files: every figure in them is computed here, in the slowest and plainest way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from lib_toolkit.analysis.results import Finding, Fingerprint, Metric, Remedy, Report, Severity, TensorHealth
from lib_toolkit.dtypes import DType
from lib_toolkit.hashing import FileHashes
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Filled, nbytes, numel

HOSTILE = '</script><img src=x onerror="document.title=1">\x00\u202egnp.exe\u2028<!--'
"""A name that would act, hide or end something wherever it is not escaped."""

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)

FINDINGS = (
    Finding(
        "nan",
        Severity.ERROR,
        "2 tensors hold NaN.",
        Remedy("Get the file again.", "The values are lost in this one."),
        ("model.diffusion_model.out.2.weight", HOSTILE),
    ),
    Finding(
        "position-ids",
        Severity.WARNING,
        "The position ids are broken.",
        Remedy("Let them be rewritten.", "Images change slightly.", "fix_clip"),
    ),
    Finding("ema", Severity.INFO, "The file carries an EMA copy."),
)

MERGE = {
    "sd_merge_recipe": json.dumps(
        {
            "type": "webui",
            "primary_model_hash": A,
            "secondary_model_hash": B,
            "tertiary_model_hash": None,
            "interp_method": "Weighted sum",
            "multiplier": 0.35,
            "save_as_half": True,
            "bake_in_vae": "None",
        }
    ),
    "sd_merge_models": json.dumps(
        {
            A: {"name": "first.safetensors", "legacy_hash": "0a0a0a0a", "sd_merge_recipe": None},
            B: {
                "name": "second.safetensors",
                "legacy_hash": "0b0b0b0b",
                "sd_merge_recipe": {
                    "type": "webui",
                    "primary_model_hash": C,
                    "secondary_model_hash": B,
                    "interp_method": "Add difference",
                    "multiplier": 1,
                },
            },
        }
    ),
}
"""Two models; the second is said to be merged from one that is not described, and from itself."""

HISTORY = {
    "model_toolkit.history": json.dumps(
        [
            {
                "tool": "model-toolkit",
                "version": "0.0.1",
                "source": {"name": "big.ckpt", "size": 7_703_807_346, "sha256": D, "autov2": D[:10], "legacy": " " * 8},
                "operations": ["prune", "precision auto"],
                "parts": [{"name": "better.vae.pt", "size": 822_000_000}],
            }
        ]
    )
}


def values_of(tensor) -> np.ndarray:
    """All values of a tensor as float64."""
    out = np.empty(nbytes(tensor), np.uint8)
    tensor.read_into(0, numel(tensor), out)
    if tensor.dtype is DType.BF16:
        return (out.view("<u2").astype("<u4") << 16).view("<f4").astype("<f8")
    return out.view(tensor.dtype.storage).astype("<f8")


def health_of(model: Model) -> dict[str, TensorHealth]:
    found = {}
    for key, tensor in model.tensors.items():
        values = values_of(tensor)
        finite = values[np.isfinite(values)]
        found[key] = TensorHealth(
            values.size,
            int(np.isnan(values).sum()),
            int(np.isinf(values).sum()),
            int((values == 0).sum()),
            int((np.abs(finite) > 65504).sum()),
            float(np.abs(finite).max(initial=0)),
        )
    return found


def hashes_of(path: Path) -> FileHashes:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    whole = hashlib.sha256(data).hexdigest()
    autov3 = hashlib.sha256(data[start:]).hexdigest()[:12] if path.suffix == ".safetensors" else None
    return FileHashes(whole, whole[:10], autov3, hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8])


def report_of(model: Model, findings=(), full=True) -> Report:
    """A report of an open model; ``full`` reads every value."""
    found = identify(model)
    if not full:
        return Report(model, found, True, tuple(findings))
    prints = tuple(
        Fingerprint(m.component.name, m.component.cls, m.prefix, f"mtk1:{n:064x}", None, ("NAI VAE",) if n else ())
        for n, m in enumerate(found.components)
    )
    return Report(
        model,
        found,
        False,
        tuple(findings),
        Metric(2020, 2982, None, ("The VAE's figure is that of the NAI VAE.",)),
        prints,
        f"mtk1:{99:064x}",
        hashes_of(model.origin.path) if model.origin.path.exists() else None,
        {"sshs_model_hash": ("e" * 64, False), "modelspec.hash_sha256": ("0x" + "f" * 64, None)},
        health_of(model),
    )


def model_of(table, dtype=DType.F16, name="some.safetensors", **fields) -> Model:
    """A model without values, for what a header tells."""
    tensors = {
        key: Filled(b"", DType.I64 if key.endswith("position_ids") else dtype, shape) for key, shape in table.items()
    }
    size = sum(nbytes(tensor) for tensor in tensors.values()) + 1000
    return Model(tensors, Origin(Path(name), "safetensors", size), **fields)
