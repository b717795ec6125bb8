"""The zip directory: what it must accept of honest writers, and every kind of archive that says two things."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest

from lib_toolkit.errors import FormatError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.inflate import FREE_SIZE, Inflater, read_entry
from lib_toolkit.formats.zip_reader import ZipEntry, read_directory
from tests.formats.pickle_cases import LITTLE_ZIP, archive, mapping, pickled, tensor


def entries_of(tmp_path, data):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with SourceFile(path) as file:
        return read_directory(file)


def refused(tmp_path, data, words):
    with pytest.raises(FormatError, match=words) as caught:
        entries_of(tmp_path, data)
    assert "a.zip" in str(caught.value)


def hand_made(parts, comment=b"", central=None, forced64=False, descriptor=None):
    """A zip of (name, data) made from the format's description; ``central`` may change directory fields."""
    out, directory = b"", b""
    for name, data in parts:
        raw, crc, offset = name.encode(), zlib.crc32(data), len(out)
        flags = 8 if descriptor else 0
        stated = (0, 0, 0) if descriptor else (crc, len(data), len(data))
        wide = b""
        if forced64:
            stated = (crc, 0xFFFFFFFF, 0xFFFFFFFF)
            wide = struct.pack("<2H2Q", 1, 16, len(data), len(data))
        out += (
            struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, 0, 0, 33, *stated, len(raw), len(wide)) + raw + wide + data
        )
        if descriptor:
            out += descriptor(crc, len(data))
        values = {
            "crc": crc,
            "packed": len(data),
            "size": len(data),
            "offset": offset,
            "flags": flags,
            "method": 0,
            "extra": b"",
        }
        if forced64:
            values |= {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
            values["extra"] = struct.pack("<2H3Q", 1, 24, len(data), len(data), offset)
        values |= (central or {}).get(name, {})
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, values["flags"], values["method"], 0, 33, values["crc"],
            values["packed"], values["size"], len(raw), len(values["extra"]), 0, 0, 0, 0, values["offset"],
        ) + raw + values["extra"]  # fmt: skip
    start, size, count = len(out), len(directory), len(parts)
    out += directory
    if forced64:
        out += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        out += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
        count, size, start = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    return out + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, start, len(comment)) + comment


TWO = [("r/one", b"first"), ("r/two", b"second!")]


def test_entries_are_where_zipfile_finds_them(tmp_path):
    """The offsets of an archive from Python's own writer lead to the bytes that its reader returns."""
    data = archive(pickled(mapping(("w", tensor()))), {"0": b"x" * 100, "1": b""})
    with zipfile.ZipFile(io.BytesIO(data)) as theirs:
        for entry in entries_of(tmp_path, data):
            assert data[entry.data_offset : entry.data_offset + entry.size] == theirs.read(entry.name)
            assert entry.crc == theirs.getinfo(entry.name).CRC


def test_literal_archive_of_old_torch(tmp_path):
    """Padding, data descriptors and a needless zip64 record, as PyTorch 1.6 writes them."""
    found = {entry.name: entry for entry in entries_of(tmp_path, LITTLE_ZIP)}
    assert list(found) == ["archive/data.pkl", "archive/data/0", "archive/version"]
    assert found["archive/data/0"] == ZipEntry("archive/data/0", 0, 320, 8, 8, 0xCCDF2C3A)


@pytest.mark.parametrize(
    "descriptor",
    [
        lambda crc, size: struct.pack("<3L", crc, size, size),
        lambda crc, size: b"PK\7\x08" + struct.pack("<3L", crc, size, size),
        lambda crc, size: struct.pack("<L2Q", crc, size, size),
        lambda crc, size: b"PK\7\x08" + struct.pack("<L2Q", crc, size, size),
    ],
)
def test_all_forms_of_data_descriptors(tmp_path, descriptor):
    data = hand_made(TWO, descriptor=descriptor)
    assert [data[e.data_offset : e.data_offset + e.size] for e in entries_of(tmp_path, data)] == [b"first", b"second!"]


def test_zip64_fields_are_used(tmp_path):
    data = hand_made(TWO, forced64=True)
    assert [data[e.data_offset : e.data_offset + e.size] for e in entries_of(tmp_path, data)] == [b"first", b"second!"]


def test_comment_is_allowed(tmp_path):
    assert len(entries_of(tmp_path, hand_made(TWO, comment=b"made by hand"))) == 2


def test_large_offsets_in_a_sparse_file(tmp_path):
    """An entry of 5 GiB and one behind it: sizes and offsets come from zip64 fields."""
    path, size, raw = tmp_path / "a.zip", 5 << 30, b"r/big"
    wide = struct.pack("<2H2Q", 1, 16, size, size)
    full = 0xFFFFFFFF
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 33, 7, full, full, len(raw), len(wide)) + raw + wide
    second = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 33, zlib.crc32(b"tail"), 4, 4, 6, 0) + b"r/tailtail"
    at = len(head) + size
    directory = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 33, 7, full, full, len(raw), 20, 0, 0, 0, 0, 0
    ) + raw + wide  # fmt: skip
    directory += struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 33, zlib.crc32(b"tail"), 4, 4, 6, 12, 0, 0, 0, 0, full
    ) + b"r/tail" + struct.pack("<2HQ", 1, 8, at)  # fmt: skip
    start = at + len(second)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, len(directory), start)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), full, 0)
    with path.open("wb") as out:
        out.write(head)
        out.seek(at)
        out.write(second + directory + end)
    with SourceFile(path) as file:
        big, tail = read_directory(file)
        assert (big.data_offset, big.size) == (len(head), size)
        assert file.read(tail.data_offset, tail.size) == b"tail"
        assert len(zipfile.ZipFile(path).namelist()) == 2


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a.zip"
    for data in (LITTLE_ZIP, hand_made(TWO), hand_made(TWO, forced64=True)):
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with SourceFile(path) as file, pytest.raises(FormatError):
                read_directory(file)


def with_local(data, entry, **changes):
    """The archive with fields of one local header changed: flags, method, crc, name."""
    at = data.index(b"PK\3\4", data.index(entry.encode()) - 30)
    places = {"flags": (6, "<H"), "method": (8, "<H"), "crc": (14, "<L"), "packed": (18, "<L"), "size": (22, "<L")}
    raw = bytearray(data)
    for key, value in changes.items():
        if key == "name":
            raw[at + 30 : at + 30 + len(value)] = value
        else:
            struct.pack_into(places[key][1], raw, at + places[key][0], value)
    return bytes(raw)


PLAIN = hand_made(TWO)
AMBIGUOUS = {
    "duplicate": (hand_made([("r/one", b"a"), ("r/one", b"b")]), "two entries"),
    "case twins": (hand_made([("r/one", b"a"), ("R/ONE", b"b")]), "two entries"),
    "overlap": (hand_made(TWO, central={"r/two": {"offset": 0}}), "another name"),
    "local name": (with_local(PLAIN, "r/two", name=b"r/TWO"), "another name"),
    "local method": (with_local(PLAIN, "r/two", method=8), "two different ways"),
    "local flags": (with_local(PLAIN, "r/two", flags=8), "two different ways"),
    "local crc": (with_local(PLAIN, "r/two", crc=1), "two different ways"),
    "local size": (with_local(PLAIN, "r/two", size=1), "two different ways"),
    "local zero size": (with_local(PLAIN, "r/two", size=0, packed=0), "two different ways"),
    "sizes": (hand_made(TWO, central={"r/two": {"packed": 3}}), "two different sizes"),
    "beyond": (hand_made(TWO, central={"r/two": {"packed": 10**6, "size": 10**6}}), "outside"),
    "offset beyond": (hand_made(TWO, central={"r/two": {"offset": 10**6}}), "outside"),
    "encrypted": (hand_made(TWO, central={"r/two": {"flags": 1}}), "encrypted"),
    "method": (hand_made(TWO, central={"r/two": {"method": 12}}), "method 12"),
    "no zip64 value": (hand_made(TWO, central={"r/two": {"size": 0xFFFFFFFF}}), "missing"),
    "second name": (hand_made(TWO, central={"r/two": {"extra": struct.pack("<2H", 0x7075, 0)}}), "two names"),
    "broken extra": (hand_made(TWO, central={"r/two": {"extra": struct.pack("<2H", 9, 99)}}), "extra fields"),
    "trailing": (PLAIN + b"more", "follows its end"),
    "second end": (hand_made(TWO, comment=PLAIN[-22:]), "second end record|not where"),
    "end in comment": (hand_made(TWO, comment=PLAIN[-22:] + b"x"), "second end record"),
    "prefix": (b"PK\3\4" + PLAIN, "not where"),
    "descriptor": (
        hand_made(TWO, descriptor=lambda crc, size: struct.pack("<3L", crc ^ 1, size, size)),
        "two different",
    ),
    "many entries": (PLAIN[:-14] + struct.pack("<2H", 9, 9) + PLAIN[-10:], "claims 9"),
    "fewer entries": (PLAIN[:-14] + struct.pack("<2H", 1, 1) + PLAIN[-10:], "more than the entries"),
    "disks": (PLAIN[:-18] + struct.pack("<2H", 1, 1) + PLAIN[-14:], "several parts"),
    "zero name": (hand_made([("r/\0x", b"a")]), "zero byte"),
    "empty name": (hand_made([("", b"a")]), "empty"),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_ambiguous_archives_are_refused(tmp_path, kind):
    data, words = AMBIGUOUS[kind]
    refused(tmp_path, data, words)


def test_shared_bytes_are_refused(tmp_path):
    """A local header inside of another entry's data: two entries would share bytes."""
    inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(b"in"), 2, 2, 4, 0) + b"r/inin"
    whole = hand_made([("r/out", inner), ("r/in", b"in")])
    nested = whole.index(inner)
    data = hand_made([("r/out", inner), ("r/in", b"in")], central={"r/in": {"offset": nested}})
    refused(tmp_path, data, "share bytes")


def packed(raw, size=None, crc=None, tail=b""):
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = pack.compress(raw) + pack.flush() + tail
    return data, ZipEntry(
        "r/x", 8, 0, len(data), len(raw) if size is None else size, zlib.crc32(raw) if crc is None else crc
    )


@pytest.mark.parametrize("raw", [b"", b"abc", b"\0" * 5_000_000, bytes(range(256)) * 9000])
def test_inflating_gives_exactly_the_bytes(tmp_path, raw):
    path = tmp_path / "a.zip"
    data, entry = packed(raw)
    path.write_bytes(data)
    with SourceFile(path) as file:
        assert read_entry(file, entry, 1 << 30) == raw


@pytest.mark.parametrize(
    "case",
    [
        packed(b"abcdef", size=5),
        packed(b"abcdef", size=7),
        packed(b"abcdef", crc=1),
        packed(b"abcdef", tail=b"x"),
        (b"\xff\xff\xff", ZipEntry("r/x", 8, 0, 3, 6, 0)),
        (b"", ZipEntry("r/x", 8, 0, 0, 6, 0)),
    ],
)
def test_inflating_refuses_what_is_not_as_stated(tmp_path, case):
    path = tmp_path / "a.zip"
    path.write_bytes(case[0])
    with SourceFile(path) as file, pytest.raises(FormatError, match="damaged"):
        read_entry(file, case[1], 1 << 30)


def test_ratio_is_limited_before_anything_is_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"x" * 100)
    with SourceFile(path) as file:
        with pytest.raises(FormatError, match="unpack"):
            Inflater(file).source(ZipEntry("r/x", 8, 0, 100, FREE_SIZE + 1, 0))
        with pytest.raises(FormatError, match="at most"):
            read_entry(file, ZipEntry("r/x", 8, 0, 100, 1001, 0), 1000)
