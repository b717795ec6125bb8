"""Open any supported model file, told by its first bytes and never by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lib_toolkit.errors import FormatError, IncompleteError, ToolkitError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.safetensors import looks_like_safetensors, open_safetensors
from lib_toolkit.model import Model

_HEAD = 512

_SAFETENSORS_SUFFIXES = frozenset({".safetensors", ".sft", ".st"})
_PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")

_FOREIGN: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        lambda head: head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")),
        "is a web page saved under a model's name (often a log-in or error page); download the model itself.",
    ),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "is a Git LFS pointer, not the model; fetch the real file with `git lfs pull` or by its download button.",
    ),
    (
        lambda head: head.startswith(b"GGUF"),
        "is a GGUF file, which cannot be opened yet; use the safetensors version of the model.",
    ),
    (
        lambda head: head.startswith(
            (b"Rar!", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
        ),
        "is a compressed archive; unpack it and open the model inside.",
    ),
    (
        lambda head: head.startswith(b"\x93NUMPY"),
        "is a NumPy array, not a model; there are no tensor names in it.",
    ),
    (
        lambda head: head.startswith((b"PK\x05\x06", b"PK\x07\x08", b"PK00PK")),
        "is an empty or multi-part zip archive, not a checkpoint; get it again in one piece.",
    ),
    (
        lambda head: head[257:262] == b"ustar",
        "is a tar file, perhaps of a very old PyTorch; save it again with PyTorch 0.2 to 2.5, or unpack it.",
    ),
    (
        lambda head: head.lstrip().startswith((b"{", b"[")),
        "is a text (JSON) file; an index of shards or a configuration cannot be opened yet, only single model files.",
    ),
)


def open_model(path: Path | str) -> Model:
    """Open a model file and check its structure; no tensor data is read.

    The model holds the file open until it is closed: use it in a ``with`` statement. Raises FormatError (or
    UnsafeFileError) with one sentence when the file is not a model that can be read.
    """
    path = Path(path)
    with suppress(OSError):  # a name that is too long: opening it says so
        if path.is_dir():
            raise FormatError(_folder_sentence(path))
    file = SourceFile(path)
    try:
        model = _open_by_content(file)
    except ToolkitError:
        file.close()
        raise
    except MemoryError:
        file.close()
        raise FormatError(f"{path} asks for more memory than there is; it is damaged or forged.") from None
    except BaseException:
        file.close()
        raise
    if note := _name_mismatch(model):
        model = replace(model, warnings=(*model.warnings, note))
    return model


def _open_by_content(file: SourceFile) -> Model:
    if file.size == 0:
        raise IncompleteError(f"{file.path} is empty; the download or copy never began, get it again.")
    head = file.read(0, min(_HEAD, file.size))
    if looks_like_safetensors(head):
        if _SHARD.search(file.path.name):
            raise FormatError(
                f"{file.path} is one shard of a larger model; shards cannot be opened yet, use the single-file version."
            )
        return open_safetensors(file)
    # Readers of pickles are imported for pickles alone: a command on safetensors should start at once.
    from lib_toolkit.formats.checkpoint import open_zip_checkpoint
    from lib_toolkit.formats.legacy import looks_legacy, looks_pickled, open_bare_pickle, open_legacy_checkpoint

    if head.startswith(b"PK\x03\x04"):
        return open_zip_checkpoint(file)
    if looks_legacy(head):
        return open_legacy_checkpoint(file)
    if not head.strip(b"\0"):
        raise IncompleteError(f"{file.path} holds only zeros: the download was set up but never filled; get it again.")
    for test, sentence in _FOREIGN:
        if test(head):
            raise FormatError(f"{file.path} {sentence}")
    if looks_pickled(head):
        return open_bare_pickle(file)
    raise FormatError(f"{file.path} is neither safetensors nor a PyTorch checkpoint; if it should be, get it again.")


def _folder_sentence(path: Path) -> str:
    if (path / "model_index.json").exists() or (path / "config.json").exists():
        return f"{path} is a diffusers folder, which cannot be opened yet; use the single-file version of the model."
    return f"{path} is a folder, not a model file; name a file inside it."


def _name_mismatch(model: Model) -> str | None:
    suffix = model.origin.path.suffix.lower()
    pickled = model.origin.format != "safetensors"
    if pickled and suffix in _SAFETENSORS_SUFFIXES:
        return f"The file is a PyTorch pickle although its name ends in {suffix}; it was read without running anything."
    if not pickled and suffix in _PICKLE_SUFFIXES:
        return f"The file is safetensors although its name ends in {suffix}."
    return None
