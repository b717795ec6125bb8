"""The hashes of whole files, taken in one pass in which the checksums that a container states are checked too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib_toolkit.checksums import ChecksumLane
from lib_toolkit.errors import FormatError, VerificationError
from lib_toolkit.files import SourceFile
from lib_toolkit.hashing import FileHashes, RunningHashes
from lib_toolkit.model import Checksum, Model
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import default_workers
from lib_toolkit.sweep import CHUNK, EveryByte, Lane, sweep


def of_source(model: Model, progress: Progress, threads: int | None) -> FileHashes:
    """The hashes of an open model's file. Raises FormatError when it is damaged or changes meanwhile."""
    file = model.origin.file
    if file is None:
        raise FormatError(f"{model.name} is not open; load it again.")
    hashes = _of_file(file, model.origin.format == "safetensors", model.checksums, progress, threads)
    file.check_unchanged()
    return hashes


def of_result(path: Path, is_safetensors: bool, progress: Progress, threads: int | None) -> FileHashes:
    """The hashes of a file that was just written. Raises VerificationError when it cannot be read."""
    try:
        with SourceFile(path) as file:
            return _of_file(file, is_safetensors, (), progress, threads)
    except FormatError as error:
        raise VerificationError(f"The result could not be read again: {error} Check the disk.") from error


def of_unusable(path: Path, progress: Progress, threads: int | None) -> FileHashes:
    """The hashes of a file that is no usable model. Raises FormatError when it cannot be read at all."""
    with SourceFile(path) as file:
        return _of_file(file, False, (), progress, threads)


def _of_file(
    file: SourceFile, is_safetensors: bool, checksums: Iterable[Checksum], progress: Progress, threads: int | None
) -> FileHashes:
    hashes, checks = RunningHashes(is_safetensors), ChecksumLane(checksums)
    lanes: list[Lane] = [EveryByte(hashes.add_whole), checks]
    if is_safetensors:
        lanes.append(EveryByte(hashes.add_data))
    progress.start(f"hashing {file.path.name}", file.size)
    # A thread of its own costs more than it saves for a small file.
    workers = 1 if file.size <= 8 * CHUNK else threads or default_workers()
    sweep(file, [(0, file.size)], lanes, progress, workers)
    if wrong := checks.wrong():
        raise FormatError(f"{file.path} is damaged: the checksum of {wrong[0]!r} in it does not fit; get it again.")
    return hashes.result()
