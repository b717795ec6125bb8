"""The yardsticks; each prints its seconds.

yardstick.py FILE R W: copy(r, w), read r bytes of a file and write w bytes beside it in pieces of 512 KiB, then fsync.
yardstick.py FILE R: digest(r), sha256 over the first r bytes of a file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

PIECE = 512 << 10
DIGEST_PIECE = 4 << 20


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


def digest(source: Path, count: int) -> float:
    whole = hashlib.sha256()
    buffer = memoryview(bytearray(DIGEST_PIECE))
    start = time.perf_counter()
    with source.open("rb", buffering=0) as reader:
        while count > 0:
            got = reader.readinto(buffer[: min(DIGEST_PIECE, count)])
            whole.update(buffer[:got])
            count -= got or count
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(digest(Path(sys.argv[1]), int(sys.argv[2])))
    else:
        print(copy(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
