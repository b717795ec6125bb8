"""What is read back: any changed byte is found, and the hashes taken on the way are those of the file."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from lib_toolkit.errors import VerificationError
from lib_toolkit.model import Checksum
from lib_toolkit.progress import SILENT
from lib_toolkit.verifying import frame_tiles, read_back, read_back_hashed

HEAD = 700_000
"""Longer than what is checked at a time."""


def both(path, size, tiles, workers):
    read_back(path, size, tiles, workers, SILENT)
    return read_back_hashed(path, size, tiles, True, workers, SILENT)


@pytest.fixture
def written(tmp_path):
    """A file larger than what is small, and the checksums of its parts: a long header and two tensors' ranges."""
    path = tmp_path / "x.safetensors"
    values = np.random.default_rng(5).standard_normal(1_500_000).astype("<f4")
    save_file({"a": values}, path, metadata={"note": "x" * HEAD})
    data = path.read_bytes()
    middle = len(data) // 2
    begin = 8 + int.from_bytes(data[:8], "little")
    tiles = [*frame_tiles([(0, data[:begin])])]
    tiles += [
        Checksum(n, b, e - b, zlib.crc32(data[b:e])) for n, b, e in (("a", begin, middle), ("b", middle, len(data)))
    ]
    return path, data, begin, tiles


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_was_written_is_accepted_and_hashed(written, workers):
    path, data, begin, tiles = written
    hashes = both(path, len(data), tiles, workers)
    assert hashes.sha256 == hashlib.sha256(data).hexdigest()
    assert hashes.autov3 == hashlib.sha256(data[begin:]).hexdigest()[:12]
    assert hashes.legacy == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert sum(tile.length for tile in tiles) == len(data)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("where", "name"), [(0.0, "the header"), (0.05, "the header"), (0.3, "a"), (0.9, "b")])
@pytest.mark.parametrize("read", [read_back, lambda p, s, t, w, progress: read_back_hashed(p, s, t, True, w, progress)])
def test_a_changed_byte_is_found_and_its_place_named(written, workers, where, name, read):
    path, data, _, tiles = written
    changed = bytearray(data)
    changed[int(where * len(data))] ^= 1
    path.write_bytes(changed)
    with pytest.raises(VerificationError, match=rf"does not read back as it should \({name}\)"):
        read(path, len(data), tiles, workers, SILENT)


@pytest.mark.parametrize("read", [read_back, lambda p, s, t, w, progress: read_back_hashed(p, s, t, True, w, progress)])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"])
def test_another_length_is_found(written, change, read):
    path, data, _, tiles = written
    path.write_bytes(change(data))
    with pytest.raises(VerificationError, match="its length"):
        read(path, len(data), tiles, 1, SILENT)


def test_a_file_that_went_away_is_told_of(written):
    path, data, _, tiles = written
    path.unlink()
    with pytest.raises(VerificationError, match="could not be opened again"):
        both(path, len(data), tiles, 1)
