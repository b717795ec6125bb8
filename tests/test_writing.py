"""The streaming writer: right values, one pass, and nothing left behind whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib_toolkit.casting import Cast, losses
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import CancelledError, FormatError, TargetError, ToolkitError, VerificationError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats import open_model
from lib_toolkit.plan import PROVENANCE, plan_of
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import PIECE
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.writing import WriteOptions, look_ahead, write
from tests.making import of_arrays, safetensors_bytes

ROOT = Path(__file__).parent.parent


def save(path: Path, arrays, metadata=None) -> Path:
    path.write_bytes(safetensors_bytes(of_arrays(arrays), metadata))
    return path


def halved(plan):
    """A plan with every float32 tensor at float16, made by hand."""
    from dataclasses import replace

    tensors = {k: Cast(t, DType.F16) if t.dtype is DType.F32 else t for k, t in plan.tensors.items()}
    return replace(plan, tensors=tensors)


def big_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "large": rng.standard_normal((3, PIECE // 2 + 77)).astype("<f4"),
        "exactly one piece": rng.standard_normal(PIECE).astype("<f4"),
        "ids": np.arange(77, dtype="<i8")[None],
        "scalar": np.float32(3.5).reshape(()),
        "v_pred": np.empty(0, "<f4"),
        "half": rng.standard_normal(5).astype("<f2"),
        "flags": np.array([True, False, True]),
    }


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_values_are_those_of_an_independent_cast(tmp_path, workers):
    arrays = big_arrays()
    source = save(tmp_path / "a.safetensors", arrays, {"format": "pt", "author": "somebody", "x": "ü\n"})
    before = source.read_bytes()
    with open_model(source) as model:
        plan = halved(plan_of(model))
        written = write(plan, tmp_path / "b.safetensors", WriteOptions(workers=workers))
    assert written.size == (tmp_path / "b.safetensors").stat().st_size == plan.predicted_size("safetensors")
    result = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert result.keys() == arrays.keys()
    for key, array in arrays.items():
        expected = array.astype("<f2") if array.dtype == np.float32 else array
        assert result[key].dtype == expected.dtype
        assert result[key].shape == expected.shape
        assert result[key].tobytes() == expected.tobytes(), key
    with safetensors.safe_open(tmp_path / "b.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert {k: metadata[k] for k in ("format", "author", "x")} == {"format": "pt", "author": "somebody", "x": "ü\n"}
    assert source.read_bytes() == before


def test_alignment_and_spare_room(tmp_path):
    with open_model(save(tmp_path / "a.safetensors", big_arrays())) as model:
        write(plan_of(model), tmp_path / "b.safetensors")
    raw = (tmp_path / "b.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length]
    assert (8 + length) % 256 == 0
    assert len(header) - len(header.rstrip(b" ")) >= 2048
    sizes = {"F32": 4, "F16": 2, "I64": 8, "BOOL": 1}
    for key, entry in json.loads(header).items():
        if key != "__metadata__":
            assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0


def test_the_same_plan_gives_the_same_bytes(tmp_path):
    with open_model(save(tmp_path / "a.safetensors", big_arrays())) as model:
        for name, workers in (("b", 1), ("c", 5)):
            write(halved(plan_of(model)), tmp_path / f"{name}.safetensors", WriteOptions(workers=workers))
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_every_needed_byte_is_read_once_and_no_other(tmp_path, monkeypatch):
    arrays = big_arrays()
    source = save(tmp_path / "a.safetensors", arrays)
    reads: list[tuple[int, int]] = []
    read_at = SourceFile.read_at

    def spy(self, offset, out):
        if self.path == source:
            reads.append((offset, len(out)))
        read_at(self, offset, out)

    with open_model(source) as model:
        data_start = min(t.offset for t in model.tensors.values())
        plan = halved(plan_of(model))
        from lib_toolkit.plan import drop

        plan = drop(plan, {"exactly one piece": "not wanted"})
        monkeypatch.setattr(SourceFile, "read_at", spy)
        write(plan, tmp_path / "b.safetensors", WriteOptions(workers=2))
        gap = model.tensors["exactly one piece"]
    reads = sorted((o, n) for o, n in reads if o >= data_start and n)
    position, skipped = data_start, []
    for offset, count in reads:
        if offset != position:
            skipped.append((position, offset - position))
        position = offset + count
    assert skipped == [(gap.offset, PIECE * 4)]
    assert position == source.stat().st_size


def test_overflow_keeps_the_type_of_that_tensor_alone(tmp_path):
    arrays = {
        "fits": np.full(PIECE + 5, 65504, "<f4"),
        "too large": np.array([1, 65536, -1e9, np.inf, np.nan], "<f4"),
        "tiny": np.array([1e-9, 0, 1], "<f4"),
    }
    with open_model(save(tmp_path / "a.safetensors", arrays)) as model:
        plan = halved(plan_of(model))
        seen, lost = look_ahead(plan, WriteOptions())
        written = write(plan, tmp_path / "b.safetensors")
        with pytest.raises(TargetError, match="too large for F16"):
            write(plan, tmp_path / "c.safetensors", WriteOptions(strict=True))
        with pytest.raises(TargetError, match="too large for F16"):
            look_ahead(plan, WriteOptions(strict=True))
    assert (lost["too large"].overflowed, lost["too large"].nan) == (2, 1)
    assert written.narrowing["tiny"].vanished == 1
    result = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert result["too large"].dtype == np.float32
    assert result["too large"].tobytes() == arrays["too large"].tobytes()
    assert result["fits"].dtype == result["tiny"].dtype == np.float16
    assert written.size == seen.predicted_size("safetensors") == (tmp_path / "b.safetensors").stat().st_size
    assert any("too large" in warning for warning in written.plan.warnings)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_tensor_of_which_most_would_become_zero_keeps_its_type(tmp_path):
    """Zeros say nothing of what is lost, wherever in a tensor they stand."""
    sparse = np.zeros(3 * PIECE, "<f4")
    sparse[[5, PIECE + 5, -5]] = 1e-9, 1e-9, 1
    arrays = {
        "up": np.full((64, 4), 1e-9, "<f4"),
        "alpha": np.float32(1e-8).reshape(()),
        "sparse": sparse,
        "half": np.array([1e-9, 0, 1], "<f4"),
        "zeros": np.zeros(2 * PIECE, "<f4"),
        "hot": np.array([1e6, 1e-9, 1e-9], "<f4"),
    }
    with open_model(save(tmp_path / "a.safetensors", arrays)) as model:
        plan = halved(plan_of(model))
        seen, _ = look_ahead(plan, WriteOptions())
        written = write(plan, tmp_path / "b.safetensors")
        for refused in (look_ahead, partial(write, path=tmp_path / "c.safetensors")):
            with pytest.raises(TargetError, match=r"259 values in 3 tensors are too small for F16.*strict"):
                refused(plan, options=WriteOptions(strict=True))
    result = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    kept = {"up", "alpha", "sparse", "hot"}
    for key, array in arrays.items():
        expected = array if key in kept else array.astype("<f2")
        assert (result[key].dtype, result[key].tobytes()) == (expected.dtype, expected.tobytes()), key
    assert written.size == seen.predicted_size("safetensors") == (tmp_path / "b.safetensors").stat().st_size
    assert {change.key: change.what for change in written.plan.changed} == {
        "up": "kept at F32: 256 values would become zero",
        "alpha": "kept at F32: 1 value would become zero",
        "sparse": "kept at F32: 2 values would become zero",
        "hot": "kept at F32: 1 value would overflow",
    }
    lost = losses(written.narrowing, written.plan.tensors)
    assert (lost.vanished, lost.overflowed) == (1, 0)
    assert [warning.partition(" (")[0] for warning in written.plan.warnings] == [
        "1 value in 1 tensor is too large for F16",
        "259 values in 3 tensors are too small for F16, where most of a tensor would become zero",
    ]


def test_hashes_of_the_source_reach_the_metadata(tmp_path):
    import hashlib

    arrays = {"w": np.random.default_rng(3).standard_normal(400_000).astype("<f4")}
    source = save(tmp_path / "a.safetensors", arrays)
    raw = source.read_bytes()
    with open_model(source) as model:
        size = plan_of(model).predicted_size("safetensors", hash_source=True)
        written = write(plan_of(model), tmp_path / "b.safetensors", WriteOptions(hash_source=True))
    assert written.size == size
    with open_model(tmp_path / "b.safetensors") as model:
        entry = json.loads(model.metadata[PROVENANCE])[-1]["source"]
    data = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert entry["sha256"] == hashlib.sha256(raw).hexdigest()
    assert entry["autov2"] == entry["sha256"][:10]
    assert entry["autov3"] == hashlib.sha256(data).hexdigest()[:12]
    assert entry["legacy"] == hashlib.sha256(raw[0x100000:0x110000]).hexdigest()[:8]
    assert (entry["name"], entry["size"]) == ("a.safetensors", len(raw))


def test_a_source_without_a_safetensors_header_has_no_hash_of_what_follows_it(tmp_path):
    with open_model(save(tmp_path / "a.safetensors", {"w": np.ones(3, "<f4")})) as model:
        write(plan_of(model), tmp_path / "a.ckpt", WriteOptions("ckpt"))
    with open_model(tmp_path / "a.ckpt") as model:
        size = plan_of(model).predicted_size("safetensors", hash_source=True)
        written = write(plan_of(model), tmp_path / "b.safetensors", WriteOptions(hash_source=True))
    assert written.hashes.autov3 is None
    assert written.size == size
    with open_model(tmp_path / "b.safetensors") as model:
        entry = json.loads(model.metadata[PROVENANCE])[-1]["source"]
    assert entry.keys() == {"name", "size", "sha256", "autov2", "legacy"}


def test_history_grows_with_each_write(tmp_path):
    save(tmp_path / "a.safetensors", {"w": np.zeros(3, "<f4")}, {PROVENANCE: "damaged ["})
    for before, after in (("a", "b"), ("b", "c")):
        with open_model(tmp_path / f"{before}.safetensors") as model:
            write(plan_of(model), tmp_path / f"{after}.safetensors")
    with open_model(tmp_path / "c.safetensors") as model:
        names = [entry["source"]["name"] for entry in json.loads(model.metadata[PROVENANCE])]
    assert names == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_fault_at_any_step_leaves_nothing(tmp_path, monkeypatch, call, number):
    source = save(tmp_path / "a.safetensors", big_arrays())
    before = source.read_bytes()
    calls = 0

    def failing(original):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        return wrapper

    if call == "write":
        name = "pwrite" if hasattr(os, "pwrite") else None
        if name is None:
            pytest.skip("writes go through handles here")
        monkeypatch.setattr(os, name, failing(os.pwrite))
    elif call == "fsync":
        if number == 2:
            pytest.skip("the folder's own sync may fail without harm")
        monkeypatch.setattr(os, "fsync", failing(os.fsync))
    else:
        if number == 2:
            pytest.skip("there is one rename")
        from lib_toolkit import temporary

        monkeypatch.setattr(temporary, "rename", failing(temporary.rename))
    with open_model(source) as model, pytest.raises(TargetError):
        write(halved(plan_of(model)), tmp_path / "b.safetensors")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert source.read_bytes() == before


def test_a_disk_that_forgets_is_noticed(tmp_path, monkeypatch):
    write_at = TemporaryFile.write_at

    def lossy(self, offset, data):
        if len(data) > 1000:
            data = memoryview(bytes(len(data)))
        write_at(self, offset, data)

    source = save(tmp_path / "a.safetensors", big_arrays())
    monkeypatch.setattr(TemporaryFile, "write_at", lossy)
    with open_model(source) as model, pytest.raises(VerificationError, match="read back"):
        write(plan_of(model), tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("change", ["shorter", "touched"])
def test_a_source_that_changes_meanwhile_is_noticed(tmp_path, change):
    source = save(tmp_path / "a.safetensors", big_arrays())
    with open_model(source) as model:
        if change == "shorter":
            os.truncate(source, source.stat().st_size // 2)
        else:
            os.utime(source, ns=(1, 1))
        with pytest.raises(FormatError, match=r"a\.safetensors"):
            write(plan_of(model), tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_cancel_in_the_middle_of_a_tensor(tmp_path, monkeypatch):
    source = save(tmp_path / "a.safetensors", {"w": np.ones(PIECE * 40, "<f4")})
    reads = 0
    stop = threading.Event()
    read_at = SourceFile.read_at

    def slow(self, offset, out):
        nonlocal reads
        if len(out) > 1000:
            reads += 1
            if reads == 5:
                stop.set()
            time.sleep(0.01)
        read_at(self, offset, out)

    monkeypatch.setattr(SourceFile, "read_at", slow)
    with open_model(source) as model, pytest.raises(CancelledError):
        write(halved(plan_of(model)), tmp_path / "b.safetensors", progress=Progress(cancelled=stop.is_set))
    assert reads < 12
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_progress_is_told_with_speed_and_time_left(tmp_path, monkeypatch):
    source = save(tmp_path / "a.safetensors", {"w": np.ones(PIECE * 8, "<f4")})
    read_at = SourceFile.read_at

    def slow(self, offset, out):
        time.sleep(0.05)
        read_at(self, offset, out)

    monkeypatch.setattr(SourceFile, "read_at", slow)
    seen = []
    with open_model(source) as model:
        write(plan_of(model), tmp_path / "b.safetensors", WriteOptions(workers=1), Progress(seen.append))
    writing = [s for s in seen if s.phase == "writing"]
    assert [s.done for s in writing] == sorted(s.done for s in writing)
    assert writing[-1].done == writing[-1].total == PIECE * 8 * 4
    assert any(s.speed > 0 and s.left is not None and s.left > 0 for s in writing)
    assert {s.phase for s in seen} == {"writing", "verifying"}


SAVER = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from lib_toolkit.files import SourceFile
    from lib_toolkit.formats import open_model
    from lib_toolkit.plan import plan_of
    from lib_toolkit.writing import write
    folder = Path({folder!r})
    read_at = SourceFile.read_at
    def slow(self, offset, out):
        time.sleep(0.0005)
        read_at(self, offset, out)
    SourceFile.read_at = slow
    with open_model(folder / "a.safetensors") as model:
        plan = plan_of(model)
        print("ready", flush=True)
        write(plan, folder / "b.safetensors")
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_kill_at_random_moments_leaves_no_file_or_a_whole_one(tmp_path):
    arrays = {f"w{i}": np.full(PIECE, i, "<f4") for i in range(30)}
    source = save(tmp_path / "a.safetensors", arrays)
    with open_model(source) as model:
        write(plan_of(model), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    final = tmp_path / "b.safetensors"
    code = SAVER.format(root=str(ROOT), folder=str(tmp_path))
    rng = np.random.default_rng(11)
    outcomes = set()
    for _ in range(14):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline().strip() == b"ready"
        time.sleep(rng.uniform(0, 0.16))
        process.kill()
        process.wait()
        process.stdout.close()
        outcomes.add(final.exists())
        if final.exists():
            assert final.read_bytes() == whole
            final.unlink()
    assert False in outcomes
    with open_model(source) as model:
        write(plan_of(model), final)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "whole.safetensors"]
    assert final.read_bytes() == whole


LIMITED = textwrap.dedent(
    """
    import resource, signal, sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from lib_toolkit.errors import TargetError
    from lib_toolkit.formats import open_model
    from lib_toolkit.plan import plan_of
    from lib_toolkit.writing import write
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    folder = Path({folder!r})
    try:
        with open_model(folder / "a.safetensors") as model:
            write(plan_of(model), folder / "b.safetensors")
    except TargetError as error:
        print("refused:", error)
    """
)


def test_a_disk_that_runs_full_for_real(tmp_path):
    pytest.importorskip("resource")
    source = save(tmp_path / "a.safetensors", {"w": np.ones(PIECE * 4, "<f4")})
    before = source.read_bytes()
    code = LIMITED.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert source.read_bytes() == before


def test_a_model_that_repeats_itself_beyond_reason_is_refused(tmp_path):
    from dataclasses import replace

    source = save(tmp_path / "a.safetensors", {"w": np.ones(PIECE, "<f4")})
    with open_model(source) as model:
        plan = plan_of(model)
        many = {f"w{i}": model.tensors["w"] for i in range(1100)}
        with pytest.raises(TargetError, match="would grow"):
            write(replace(plan, tensors=many), tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


DTYPES = ["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "|u1", "|b1"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda k: k != "__metadata__" and k.isprintable()),
        st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))),
        max_size=6,
    ),
    st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=4),
)
def test_round_trip_of_any_model(tmp_path_factory, arrays, metadata):
    folder = tmp_path_factory.mktemp("trip")
    try:
        source = save(folder / "a.safetensors", arrays, metadata)
        with open_model(source) as model:
            write(plan_of(model), folder / "b.safetensors")
    except (UnicodeEncodeError, ToolkitError) as error:
        assert "text" in str(error) or "surrogates" in str(error)
        return
    result = safetensors.numpy.load_file(folder / "b.safetensors")
    assert {k: (a.dtype, a.shape, a.tobytes()) for k, a in result.items()} == {
        k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()
    }
    with open_model(folder / "b.safetensors") as model:
        expected = {k: v for k, v in metadata.items() if k not in {"format", PROVENANCE}}
        assert {k: v for k, v in model.metadata.items() if k not in {"format", PROVENANCE}} == expected
