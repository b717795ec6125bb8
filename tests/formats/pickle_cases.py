"""Builders of pickled checkpoints, opcode by opcode, so that tests can make files that no program would write."""

from __future__ import annotations

import io
import struct
import zipfile

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
VERSION = b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."

LITTLE_ZIP = bytes.fromhex(
    "504b03040000080800000000000000000000000000000000000010001200617263686976652f646174612e706b6c46420e005a5a5a5a5a"
    "5a5a5a5a5a5a5a5a5a800263636f6c6c656374696f6e730a4f726465726564446963740a710029527101580100000077710263746f7263"
    "682e5f7574696c730a5f72656275696c645f74656e736f725f76320a71032828580700000073746f72616765710463746f7263680a466c"
    "6f617453746f726167650a71055801000000307106580300000063707571074b02747108514b004b028571094b0185710a896800295271"
    "0b74710c52710d732e504b0708a29b8327a5000000a5000000504b0304000008080000000000000000000000000000000000000e001f00"
    "617263686976652f646174612f3046421b005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a0000c03f000000c0504b"
    "07083a2cdfcc0800000008000000504b0304000008080000000000000000000000000000000000000f003b00617263686976652f766572"
    "73696f6e464237005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
    "5a5a5a5a5a5a5a5a330a504b0708d19e67550200000002000000504b0102000000000808000000000000a29b8327a5000000a500000010"
    "0000000000000000000000000000000000617263686976652f646174612e706b6c504b01020000000008080000000000003a2cdfcc0800"
    "0000080000000e00000000000000000000000000f5000000617263686976652f646174612f30504b0102000000000808000000000000d1"
    "9e675502000000020000000f0000000000000000000000000058010000617263686976652f76657273696f6e504b06062c000000000000"
    "001e032d00000000000000000003000000000000000300000000000000b700000000000000d201000000000000504b0607000000008902"
    "00000000000001000000504b05060000000003000300b7000000d20100000000"
)
"""{"w": [1.5, -2.0]} in FP32, in the form that PyTorch 1.6 wrote: padding, data descriptors, a zip64 end record."""

LITTLE_LEGACY = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    b"\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\x0d\x00\x00\x00little_endianq\x02\x88"
    b"X\x0a\x00\x00\x00type_sizesq\x03}q\x04(X\x05\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04"
    b"X\x04\x00\x00\x00longq\x07K\x04uu."
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wq\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x0e\x00\x00\x0094868471639520q\x06"
    b"X\x03\x00\x00\x00cpuq\x07K\x02Ntq\x08QK\x00K\x02\x85q\x09K\x01\x85q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0ds."
    b"\x80\x02]q\x00X\x0e\x00\x00\x0094868471639520q\x01a."
    b"\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0?\x00\x00\x00\xc0"
)
"""The same in the form of PyTorch before 1.6."""


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tup(*parts):
    return b"(" + b"".join(parts) + b"t"


def mapping(*pairs):
    """A dict; each pair is (key, value) with text keys as str and everything else as opcodes."""
    items = (part for pair in pairs for part in pair)
    return b"}(" + b"".join(text(item) if isinstance(item, str) else item for item in items) + b"u"


def array(*items):
    return b"](" + b"".join(items) + b"e"


def call(callee, *args):
    return callee + tup(*args) + b"R"


def ordered(*pairs):
    return name("collections", "OrderedDict") + b")R" + mapping(*pairs)[1:]


def storage(key="0", numel=2, kind="FloatStorage", extra=b""):
    key_code = integer(key) if isinstance(key, int) else text(key)
    return tup(text("storage"), name("torch", kind), key_code, text("cpu"), integer(numel), extra) + b"Q"


def tensor(key="0", numel=2, shape=(2,), stride=(1,), offset=0, kind="FloatStorage", extra=b""):
    """An FP32 tensor of two elements unless told otherwise."""
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(key, numel, kind, extra),
        integer(offset),
        tup(*map(integer, shape)),
        tup(*map(integer, stride)),
        b"\x89",
        name("collections", "OrderedDict") + b")R",
    )


def pickled(value, protocol=2):
    return bytes([0x80, protocol]) + value + b"."


PAIR = struct.pack("<2f", 1.5, -2.0)
"""The bytes of the storage that tensor() refers to."""


def archive(pickle, storages=None, method=zipfile.ZIP_STORED, root="archive", **others):
    """A checkpoint around a pickle. ``storages`` by key; ``others`` are further entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(f"{root}/data.pkl", pickle)
        for key, data in ({"0": PAIR} if storages is None else storages).items():
            file.writestr(f"{root}/data/{key}", data)
        file.writestr(f"{root}/version", b"3\n")
        for other, data in others.items():
            file.writestr(f"{root}/{other}", data)
    return out.getvalue()


def legacy(contents, storages=None, system=SYSTEM, keys=None):
    """A legacy file around a pickle. ``storages`` is a list of (key, count, bytes)."""
    storages = [("0", 2, PAIR)] if storages is None else storages
    listed = pickled(array(*(text(key) for key in (keys if keys is not None else [s[0] for s in storages]))))
    data = b"".join(struct.pack("<q", count) + raw for _, count, raw in storages)
    return MAGIC + VERSION + system + contents + listed + data


def evil(marker):
    """Pickles by name that create the file ``marker`` when a real unpickler reads them, by every route there is."""
    argument = text(f"touch '{marker}'")
    code = text(f"open({str(marker)!r}, 'w').close()")
    system, posix, evaluate = name("os", "system"), name("posix", "system"), name("builtins", "eval")
    get = name("builtins", "getattr")
    module = call(name("builtins", "__import__"), text("os"))
    weights = mapping(("w", tensor()))
    return {
        "reduce": pickled(call(system, argument)),
        "reduce posix": pickled(call(posix, argument)),
        "eval": pickled(call(evaluate, code)),
        "exec": pickled(call(name("builtins", "exec"), code)),
        "python 2 builtins": pickled(call(name("__builtin__", "eval"), code)),
        "stack global": pickled(text("os") + text("system") + b"\x93" + tup(argument) + b"R", 4),
        "dotted name": pickled(text("os") + text("path.os.system") + b"\x93" + tup(argument) + b"R", 4),
        "inst": b"(" + argument + b"ios\nsystem\n.",
        "obj": pickled(b"(" + name("subprocess", "Popen") + array(text("touch"), text(str(marker))) + b"o"),
        "newobj": pickled(name("subprocess", "Popen") + tup(array(text("touch"), text(str(marker)))) + b"\x81"),
        "newobj_ex": pickled(
            name("subprocess", "Popen") + b")" + mapping(("args", array(text("touch"), text(str(marker))))) + b"\x92", 4
        ),
        "build": pickled(call(name("collections", "OrderedDict")) + call(system, argument) + b"b"),
        "getattr": pickled(call(call(get, module, text("system")), argument)),
        "partial": pickled(call(call(name("functools", "partial"), system, argument))),
        "runpy": pickled(call(name("runpy", "run_path"), text(str(marker)))),
        "torch.load": pickled(call(name("torch", "load"), text(str(marker)))),
        "hub": pickled(call(name("torch.hub", "load"), text(str(marker)), text("x"))),
        "popped": pickled(call(system, argument) + b"0" + weights),
        "in a state dict": pickled(mapping(("state_dict", weights), ("x", call(system, argument)))),
        "as a key": pickled(b"}(" + call(system, argument) + b"Nu"),
        "persistent id": pickled(call(system, argument) + b"Q"),
        "before damage": pickled(call(system, argument) + b"\xff"),
        "protocol 0": b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.",
    }
