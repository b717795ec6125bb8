"""Read back what was written, and compare it with the checksums that were taken on the way to the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_toolkit.casting import scratch
from lib_toolkit.checksums import ChecksumLane
from lib_toolkit.crc import crc32
from lib_toolkit.errors import FormatError, VerificationError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.layout import Frame
from lib_toolkit.hashing import FileHashes, RunningHashes
from lib_toolkit.model import Checksum
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import WRITE, default_workers
from lib_toolkit.sweep import EveryByte, Lane, sweep

_SMALL = 4 << 20
"""Bytes of a file for which threads of its own cost more than they save."""


def frame_tiles(frame: Frame) -> tuple[Checksum, ...]:
    """The checksums of what stands around the tensors."""
    return tuple(
        Checksum("the header", offset + begin, len(piece), crc32(piece))
        for offset, data in frame
        for begin in range(0, len(data), WRITE)
        if (piece := memoryview(data)[begin : begin + WRITE])
    )


def read_back(path: Path, size: int, tiles: Iterable[Checksum], workers: int | None, progress: Progress) -> None:
    """Compare a file of ``size`` bytes with its checksums. Raises VerificationError where they differ, and
    CancelledError."""
    progress.start("verifying", size)
    with _opened(path, size) as file, _of_the_disk():

        def differs(tile: Checksum) -> str | None:
            crc = 0
            with scratch(min(WRITE, tile.length)) as buffer:
                for begin in range(0, tile.length, WRITE):
                    data = buffer.data[: min(WRITE, tile.length - begin)]
                    file.read_at(tile.offset + begin, data)
                    crc = crc32(data, crc)
                    progress.advance(len(data))
            return None if crc == tile.crc else tile.name

        _refuse(_each(differs, tiles, 1 if size < _SMALL else workers or default_workers()))


def _each(differs: Callable[[Checksum], str | None], tiles: Iterable[Checksum], workers: int) -> list[str]:
    """What ``differs`` says of each. No executor does it: that makes an object for each of many thousands at once."""
    waiting, lock = iter(tiles), threading.Lock()
    wrong: list[str] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                with lock:
                    tile = next(waiting, None)
                if tile is None:
                    return
                if name := differs(tile):
                    wrong.append(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return wrong


def read_back_hashed(
    path: Path, size: int, tiles: Iterable[Checksum], is_safetensors: bool, workers: int | None, progress: Progress
) -> FileHashes:
    """As ``read_back``; the hashes of the whole file are taken of the same bytes."""
    progress.start("verifying and hashing", size)
    hashes, checks = RunningHashes(is_safetensors), ChecksumLane(tiles)
    lanes: list[Lane] = [checks, EveryByte(hashes.add_whole)]
    if is_safetensors:
        lanes.append(EveryByte(hashes.add_data))
    with _opened(path, size) as file, _of_the_disk():
        sweep(file, [(0, size)], lanes, progress, 1 if size < _SMALL else workers or default_workers())
    _refuse(checks.wrong())
    return hashes.result()


def _opened(path: Path, size: int) -> SourceFile:
    try:
        file = SourceFile(path)
    except FormatError as error:
        raise VerificationError(f"The new file could not be opened again ({error}); it was removed.") from error
    if file.size != size:
        file.close()
        _refuse(["its length"])
    return file


@contextmanager
def _of_the_disk() -> Iterator[None]:
    """What cannot be read is our own file: the source is not to blame."""
    try:
        yield
    except FormatError as error:
        raise VerificationError(
            f"What was written could not be read back ({error}); the result was removed, the source is untouched. "
            "Check the disk."
        ) from error


def _refuse(wrong: Iterable[str]) -> None:
    if names := list(dict.fromkeys(wrong)):
        raise VerificationError(
            f"What was written does not read back as it should ({', '.join(names[:3])}); "
            "the result was removed, the source is untouched. Check the disk."
        )
