"""copy(r, w): read r bytes of a file and write w bytes beside it in pieces of 512 KiB, then fsync; prints seconds."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

PIECE = 512 << 10


def copy(source: Path, read: int, write: int) -> float:
    target = source.with_name("yardstick.tmp")
    buffer = memoryview(bytearray(PIECE))
    start = time.perf_counter()
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while read > 0 or write > 0:
            count = reader.readinto(buffer[: min(PIECE, read)]) if read > 0 else PIECE
            read -= count or read
            if write > 0:
                write -= writer.write(buffer[: min(PIECE, write)])
        os.fsync(writer.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


if __name__ == "__main__":
    print(copy(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
