from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from lib_toolkit.crc import combine


@given(st.lists(st.binary(max_size=300)))
def test_parts_give_the_checksum_of_the_whole(parts):
    assert combine((zlib.crc32(part), len(part)) for part in parts) == zlib.crc32(b"".join(parts))


def test_long_parts():
    part = bytes(range(256)) * 5000
    assert combine([(zlib.crc32(part), len(part))] * 3) == zlib.crc32(part * 3)
