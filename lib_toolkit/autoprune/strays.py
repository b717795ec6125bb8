"""What to say of files that are not named like a model: some are of a kind that no other name would make one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ARCHIVE = "It is an archive; unpack it and put the model that is inside here."
_OTHERS = "It is a model for {}, which cannot be pruned; move it to the folder of the program that uses it."

_KNOWN: Mapping[str, str] = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"), _ARCHIVE),
    ".gguf": "GGUF files cannot be pruned yet; move it to the folder where your WebUI looks for them, or get the "
    "model as safetensors.",
    ".onnx": _OTHERS.format("ONNX Runtime"),
    **dict.fromkeys((".engine", ".trt"), _OTHERS.format("TensorRT")),
    ".tflite": _OTHERS.format("TensorFlow Lite"),
    ".h5": _OTHERS.format("Keras"),
    ".msgpack": _OTHERS.format("Flax"),
}

_ANY = (
    "It is not named like a model that is known (.safetensors, .ckpt, .pt, .pth, .bin); if it is one, and no download "
    "of it goes on, give it the ending that it has where it comes from."
)

NAMES_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})
"""Files that systems put everywhere, in small letters: not worth a word."""


def why_left(name: str) -> str:
    """Why a file of this name is left alone, and what to do with it."""
    return _KNOWN.get(Path(name).suffix.lower(), _ANY)
