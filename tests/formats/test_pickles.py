"""The interpreter of pickles: same values as Python's own, nothing run, every budget kept."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.errors import FormatError, ToolkitError, UnsafeFileError
from lib_toolkit.formats.opening import open_model
from lib_toolkit.formats.pickle_names import runs_programs
from lib_toolkit.formats.pickle_nodes import Bag, Call, Mapping, Name, Persistent
from lib_toolkit.formats.pickles import CutShortError, read_pickle
from tests.formats.pickle_cases import (
    archive,
    array,
    call,
    evil,
    integer,
    legacy,
    mapping,
    name,
    ordered,
    pickled,
    tensor,
    text,
    tup,
)


def read(data):
    return read_pickle(data, 0, "x.ckpt").value


def plain(node):
    """Nodes back to Python's own containers, for comparison with pickle.loads in tests."""
    if isinstance(node, Mapping):
        return {plain(key): plain(value) for key, value in node.pairs}
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, tuple):
        return tuple(plain(item) for item in node)
    if isinstance(node, Bag):
        return {plain(item) for item in node.items}
    if isinstance(node, Call) and node.callee.text in ("builtins.set", "builtins.frozenset"):
        return {plain(item) for item in node.args[0]}
    if isinstance(node, Call) and node.callee.text == "_codecs.encode":
        return node.args[0].encode("latin-1")
    if isinstance(node, Call) and node.callee.text == "builtins.bytes":
        return b""
    return node


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**1000), 2**1000),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner, inner, inner),
        st.tuples(inner),
        st.dictionaries(st.text(max_size=3), inner),
        st.frozensets(st.integers()),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.integers(0, 5))
def test_values_are_those_of_pickle(value, protocol):
    assert plain(read(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(6))
def test_shared_and_cyclic_lists_keep_their_identity(protocol):
    inner = [1]
    value = [inner, inner]
    value.append(value)
    first, second, third = read(pickle.dumps(value, protocol))[:3]
    assert first is second
    assert third[0] is first


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"I01\n.", True),
        (b"I00\n.", False),
        (b"I-17\n.", -17),
        (b"L18446744073709551616L\n.", 2**64),
        (b"F-0.5\n.", -0.5),
        (b"S'a\\x41\\n\\\\'\np0\n.", "aA\n\\"),
        (b'S"it\'s"\n.', "it's"),
        (b"S'\\xff\\101'\n.", b"\xffA"),
        (b"V\\u00e9x\n.", "éx"),
        (b"T\x02\x00\x00\x00\xff\x00.", b"\xff\x00"),
        (b"U\x01a.", "a"),
        (b"\x80\x02\x8b\x02\x00\x00\x00\x00\x80.", -32768),
        (b"(K\x01K\x021K\x05.", 5),
        (b"K\x010K\x02.", 2),
        (b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.", b"ab"),
        (b"X\x02\x00\x00\x00\xc3(.", "\\xc3("),
    ],
)
def test_literal_opcodes(data, value):
    """Answers are from pickletools' description; bytes that are no text become readable escapes."""
    found = read(data)
    assert found == value
    assert type(found) is type(value)


def test_objects_stay_names_and_arguments():
    node = read(pickled(name("a.b", "C") + tup(integer(1)) + b"\x81" + mapping(("k", integer(2))) + b"b"))
    assert isinstance(node, Call)
    assert node.callee.text == "a.b.C"
    assert node.args == (1,)
    assert node.state.pairs == [("k", 2)]
    node = read(b"(K\x01ia.b\nC\n.")
    assert (node.callee.text, node.args) == ("a.b.C", (1,))
    node = read(b"\x80\x02(" + name("a", "C") + b"K\x01K\x02o.")
    assert (node.callee.text, node.args) == ("a.C", (1, 2))
    assert isinstance(read(pickled(text("q") + b"Q")), Persistent)
    assert read(b"\x80\x02\x82\x07.").text == "copyreg.extension 7"
    assert isinstance(read(pickled(name("__builtin__", "set"))), Name)
    assert read(pickled(name("__builtin__", "set"))).text == "builtins.set"


def test_items_of_unknown_objects_are_kept():
    node = read(pickled(name("a", "D") + b")R(" + text("k") + integer(1) + b"u(" + integer(7) + b"e"))
    assert (node.pairs, node.items) == ([("k", 1)], [7])


MANY = 200_000
ENDLESS = {
    "huge long4": pickled(b"\x8b\xff\xff\xff\x7f"),
    "negative long4": pickled(b"\x8b\xff\xff\xff\xff"),
    "wide long1": pickled(b"\x8a\xff" + b"\1" * 255),
    "binbytes8": pickled(b"\x8e" + struct.pack("<Q", 2**63)),
    "binunicode8": pickled(b"\x8d" + struct.pack("<Q", 2**64 - 1)),
    "bytearray8": pickled(b"\x96" + struct.pack("<Q", 2**40)),
    "memo index": pickled(b"Nr\xff\xff\xff\xff"),
    "memo line": b"Np99999999999999999999\n.",
    "negative memo": b"Np-1\n.",
    "unknown memo": pickled(b"h\x07"),
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "underflow": pickled(b"R"),
    "tuple underflow": pickled(b"K\1\x86"),
    "no mark": pickled(b"K\1t"),
    "stop at once": b".",
    "odd dict": pickled(b"}(Nu"),
    "append to number": pickled(b"K\1K\2a"),
    "set on list": pickled(b"]K\1K\2s"),
    "build on list": pickled(b"]K\1b"),
    "build on dict": pickled(b"}}b"),
    "protocol 9": b"\x80\x09N.",
    "out of band": pickled(b"\x97"),
    "stack global": pickled(b"K\1K\2\x93"),
    "quotes": b"S'abc\n.",
    "escape": b"S'\\z'\n.",
    "long name": pickled(name("a" * 5000, "b")),
    "marks": pickled(b"(" * 5000),
    "parts": pickled(b"]" * 1_000_001),
    "steps": pickled(b"N0" * 2_600_000 + b"N"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_forged_pickles_end_in_one_sentence(kind):
    start = time.perf_counter()
    with pytest.raises(FormatError, match=r"^x\.ckpt .*\.$") as caught:
        read(ENDLESS[kind])
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 10


def laughs(depth=60):
    """A list of ten references to a list of ten references …: 10^60 leaves in a kilobyte."""
    code = b"](" + integer(1) * 10 + b"eq\x00"
    for level in range(depth):
        code += b"](" + b"h" + bytes([level]) + b"h" + bytes([level]) * 1
        code += (b"h" + bytes([level])) * 8 + b"eq" + bytes([level + 1])
    return code


def doubled_tuples(depth=200):
    """A tuple of twice a tuple of twice …: its hash and its text take 2^200 steps."""
    code = b")q\x00"
    for _ in range(depth):
        code += b"q\x00h\x00\x86"
    return code


def nested(opening, closing, depth):
    return opening * depth + b"N" + closing * depth


HOSTILE_TREES = {
    "laughs": array(laughs()),
    "dict laughs": mapping(("w", tensor()), ("x", laughs())),
    "hash bomb": b"}" + doubled_tuples() + b"Ns",
    "hash bomb in a set": b"\x8f(" + doubled_tuples() + b"\x90",
    "repr bomb": mapping(("w", tensor()), ("x", doubled_tuples())),
    "deep lists": b"]" * MANY + b"a" * (MANY - 1),
    "deep tuples": b"N" + b"\x85" * MANY,
    "deep objects": name("a", "B") + b"q\x00" + b"0N" + b"".join([b"\x85q\x010h\x00h\x01R"] * MANY),
    "deep parameters": tensor()
    + b"".join([b"\x85q\x010" + name("torch._utils", "_rebuild_parameter") + b"h\x01R"] * 50),
    "cycle in a list": mapping(("w", tensor()), ("x", b"]q\x00h\x00a")),
    "cycle in a dict": b"}q\x00" + text("w") + b"h\x00s",
    "cycle at the top": b"]q\x00h\x00a",
    "list as key": b"}]Ns",
    "dict as key": b"}}Ns",
    "long keys": mapping(*((text("k" * 100_000) + b"q\x00" if i == 0 else b"h\x00", b"N") for i in range(3000))),
    "encoded again and again": text("é" * 1_000_000)
    + b"q\x000"
    + array(*[name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"] * 2000),
}


@pytest.mark.parametrize("kind", HOSTILE_TREES)
def test_endless_trees_are_refused_in_time(tmp_path, kind):
    path = tmp_path / "x.ckpt"
    path.write_bytes(archive(pickled(HOSTILE_TREES[kind])))
    start = time.perf_counter()
    with pytest.raises(FormatError, match=r"x\.ckpt is (damaged|forged)"), open_model(path):
        pass
    assert time.perf_counter() - start < 15


def test_colliding_number_keys_take_no_time(tmp_path):
    """All of these have the same hash, so that a dict of them takes the square of their number."""
    step = 2**61 - 1
    keys = ((integer(step * i), b"N") for i in range(1, 60_000))
    path = tmp_path / "x.ckpt"
    path.write_bytes(archive(pickled(mapping(("w", tensor()), *keys))))
    start = time.perf_counter()
    with open_model(path) as model:
        assert list(model.tensors) == ["w"]
        assert len(model.values) == 59_999
    assert time.perf_counter() - start < 5


def test_every_cut_of_a_pickle_is_noticed():
    data = pickle.dumps({"a": [1, 2.5, "text", b"bytes", None], "b": (1, 2**70)}, 4)
    for length in range(len(data)):
        with pytest.raises(CutShortError, match="incomplete"):
            read(data[:length])


@pytest.mark.parametrize("kind", evil("marker"))
def test_programs_are_refused_by_name(tmp_path, kind):
    """In a zip, in the old format and bare: refused, with the name in the sentence, and nothing was run."""
    marker = tmp_path / "ran"
    data = evil(marker)[kind]
    for file_name, content in {"zip.ckpt": archive(data), "old.pt": legacy(data), "bare.pt": data}.items():
        path = tmp_path / file_name
        path.write_bytes(content)
        with pytest.raises(UnsafeFileError, match="tries to run programs") as caught:
            open_model(path)
        assert file_name in str(caught.value)
    assert not marker.exists()


def test_payloads_are_real(tmp_path):
    """The payloads do run in a real unpickler; else the test above would prove nothing."""
    fired = 0
    for data in evil(tmp_path / "ran").values():
        (tmp_path / "x").write_bytes(data)
        code = f"import pickle; pickle.Unpickler(open({str(tmp_path / 'x')!r}, 'rb')).load()"
        if fired < 6:
            subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=60)
            fired += (tmp_path / "ran").exists()
            (tmp_path / "ran").unlink(missing_ok=True)
    assert fired == 6


AUDIT = """
import json, os, sys
sys.path[:0] = [os.getcwd(), sys.argv[3]]
from lib_toolkit.errors import ToolkitError
from lib_toolkit.formats.opening import open_model
from lib_toolkit.tensors import read_all
folder = sys.argv[1]
with open_model(sys.argv[2]) as model:
    [read_all(tensor) for tensor in model.tensors.values()]
files = sorted(os.listdir(folder))
seen = []
BAD = ("import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
       "pickle.find_class", "socket.", "ctypes.", "marshal.", "shutil.", "os.remove", "os.rename", "os.mkdir")
def hook(event, args):
    if event.startswith(BAD):
        seen.append([event, repr(args)[:200]])
    if event == "open":
        mode, flags = args[1], args[2]
        if (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append([event, repr(args)[:200]])
sys.addaudithook(hook)
outcomes = {}
for name in files:
    try:
        with open_model(os.path.join(folder, name)) as model:
            [read_all(tensor) for tensor in model.tensors.values()]
            outcomes[name] = "opened"
    except ToolkitError as error:
        outcomes[name] = type(error).__name__
result = list(seen)
print(json.dumps([outcomes, result]))
"""


def test_reading_triggers_no_audit_event(tmp_path):
    """No import, compile, process, socket, unpickler or opening for writing while files of every kind are read."""
    folder, probes, marker = tmp_path / "files", tmp_path / "probes", tmp_path / "ran"
    folder.mkdir()
    probes.mkdir()
    (probes / "probe_module.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Thing: pass\n")
    for number, data in enumerate(evil(marker).values()):
        (folder / f"evil{number}.ckpt").write_bytes(archive(data))
        (folder / f"evil{number}.pt").write_bytes(legacy(data))
        (folder / f"evil{number}.bin").write_bytes(data)
    thing = call(name("probe_module", "Thing"))
    harmless = pickled(mapping(("state_dict", ordered(("w", tensor()))), ("thing", thing)))
    (folder / "import_only.ckpt").write_bytes(archive(harmless))
    (folder / "good.pt").write_bytes(legacy(harmless))
    warm = tmp_path / "warm.ckpt"
    warm.write_bytes(archive(harmless))
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(folder), str(warm), str(probes)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    outcomes, seen = json.loads(done.stdout)
    assert seen == []
    assert outcomes.pop("import_only.ckpt") == "opened"
    assert outcomes.pop("good.pt") == "opened"
    assert set(outcomes.values()) == {"UnsafeFileError"}
    assert not marker.exists()


def test_torch_is_not_imported_for_reading(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(archive(pickled(mapping(("w", tensor())))))
    code = (
        "import sys; from lib_toolkit.formats.opening import open_model; model = open_model(sys.argv[1]); "
        "print(len(model.tensors), 'torch' in sys.modules, 'pickle' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "False", "False", "False"], done.stderr


@pytest.mark.parametrize(
    ("module", "attribute", "verdict"),
    [
        ("os", "system", True),
        ("os.path", "join", True),
        ("builtins", "getattr", True),
        ("builtins", "set", False),
        ("functools", "partial", True),
        ("torch", "load", True),
        ("torch.hub", "load", True),
        ("torch", "FloatStorage", False),
        ("collections", "OrderedDict", False),
        ("anything", "a.b", True),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", False),
        ("osprey", "Config", False),
    ],
)
def test_which_names_run_programs(module, attribute, verdict):
    assert runs_programs(module, attribute) is verdict


def test_names_in_messages_are_printable(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(archive(pickled(name("os", "sys\x1b[31mtem" + "x" * 500))))
    with pytest.raises(ToolkitError) as caught:
        open_model(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600
