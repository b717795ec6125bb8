"""A model that stands in its folder already is reported, not written again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.autoprune import duplicates, processing, run_once, waiting
from lib_toolkit.errors import FormatError
from tests.autoprune import samples
from tests.autoprune.samples import arrays_of, library, outcomes, save
from tests.making import safetensors_bytes


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_the_same_values_under_another_name_are_a_duplicate(lib, dtype):
    there = save(lib.folder("lora") / "sub" / "there.safetensors", samples.lora(dtype="<f2"), {"other": "metadata"})
    before = there.read_bytes()
    save(lib.drop / "again.safetensors", dict(reversed(samples.lora(dtype=dtype).items())))
    (lib.drop / "again.png").write_text("picture")
    (step,) = lib.run(sources="delete").steps
    assert (step.outcome, step.target) == ("duplicate", str(there))
    assert "there.safetensors" in step.reason
    assert there.read_bytes() == before
    assert lib.files("Lora") == ["Lora/sub/there.safetensors"]
    # Likeness is no reason to delete.
    assert lib.files("Autoprune") == ["Autoprune/Done/again.png", "Autoprune/Done/again.safetensors"]


def test_one_other_value_is_none(lib):
    arrays = samples.lora(dtype="<f2")
    there = {key: array.copy() for key, array in arrays.items()}
    middle = list(there)[4]
    there[middle][300, 2] += 1
    save(lib.folder("lora") / "there.safetensors", there)
    save(lib.drop / "again.safetensors", arrays)
    assert lib.run().counts == {"moved": 1}


def test_another_precision_is_none(lib):
    save(lib.folder("lora") / "there.safetensors", samples.lora(dtype="<f4"))
    save(lib.drop / "again.safetensors", samples.lora(dtype="<f4"))
    assert lib.run().counts == {"written": 1}


def test_the_drop_folder_may_lie_in_the_target_folder(lib):
    """A file is no duplicate of itself, nor of a source in Done."""
    policy = replace(lib.policy(), folders={"component": lib.root})
    for dtype in ("<f2", "<f4"):
        save(lib.drop / f"a{dtype[1:]}.safetensors", samples.lora(dtype=dtype, seed=int(dtype[-1])))
    assert run_once(policy, pause=0.01).counts == {"moved": 1, "written": 1}
    save(lib.drop / "af4.safetensors", samples.lora(seed=4, dtype="<f4"))
    (step,) = run_once(policy, pause=0.01).steps
    assert (step.outcome, step.target) == ("duplicate", str(lib.root / "af4.safetensors"))


@pytest.mark.parametrize("wide", ["<f4", "<f8"])
@pytest.mark.parametrize("kill", [False, True])
def test_what_fp16_would_make_equal_is_none_at_a_wider_type(lib, monkeypatch, wide, kill):
    """The second file is the better one; nor is it ended as the first one's twin after a crash."""
    arrays = {key: array.astype(wide) for key, array in samples.lora(1).items()}
    rounded = {key: array.astype("<f2").astype(wide) for key, array in arrays.items()}
    save(lib.folder("lora") / "a.safetensors", rounded)
    save(lib.drop / "a.safetensors", arrays)
    if kill:
        monkeypatch.setattr(processing.Worker, "_standing", lambda self, job, planned: _equal_one(self, job, lib))
    assert lib.run(precision="keep").counts == {"moved": 1}
    assert (lib.folder("lora") / "a(1).safetensors").is_file()
    save(lib.drop / "again.safetensors", arrays)
    (step,) = lib.run(precision="keep").steps
    assert (step.outcome, step.target) == ("duplicate", str(lib.folder("lora") / "a(1).safetensors"))


def _equal_one(worker, job, lib):
    same = worker.known.is_equal(job.verdict.plan.as_model(), lib.folder("lora") / "a.safetensors")
    return job.group if same else None


@pytest.mark.parametrize(("value", "outcome"), [(1e-9, "moved"), (2e-9, "duplicate")])
def test_bf16_models_are_compared_as_they_are(lib, value, outcome):
    """What is zero at FP16 may differ at BF16."""
    for path, tiny in ((lib.folder("lora") / "a.safetensors", 2e-9), (lib.drop / "b.safetensors", value)):
        entries = {}
        for key, array in samples.lora(1).items():
            values = np.full_like(array, tiny) if "alpha" in key else array
            bits = (values.view("<u4") >> 16).astype("<u2")
            entries[key] = ("BF16", array.shape, bits.tobytes())
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(safetensors_bytes(entries))
    assert lib.run().counts == {outcome: 1}


def test_an_equal_model_that_cannot_be_read_to_its_end_is_none(lib, monkeypatch):
    save(lib.folder("lora") / "a.safetensors", samples.lora())
    save(lib.drop / "b.safetensors", samples.lora())
    usual = duplicates._fingerprint

    def spoil(model, *rest):
        found = usual(model, *rest)
        if model.name == "a.safetensors":
            os.truncate(model.origin.path, 3000)
        return found

    monkeypatch.setattr(duplicates, "_fingerprint", spoil)
    assert lib.run(precision="keep").counts == {"moved": 1}


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="replaces os.preadv")
@pytest.mark.parametrize("where", ["open", "read"])
def test_a_model_that_could_not_be_read_once_is_known_later(lib, monkeypatch, where):
    """Its share was away, or another program had it."""
    there = save(lib.folder("lora") / "there.safetensors", samples.lora(1, "<f2"))
    save(lib.drop / "other.safetensors", samples.lora(2))
    usual = {"open": os.open, "read": os.preadv}

    def refuse(path):
        if Path(path) == there:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def opened(path, *given, **named):
        refuse(path)
        return usual["open"](path, *given, **named)

    def read(fd, *given):
        refuse(Path(f"/proc/self/fd/{fd}").readlink())
        return usual["read"](fd, *given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened) if where == "open" else patch.setattr(os, "preadv", read)
        assert outcomes(lib.run()) == {"other.safetensors": "written"}
    save(lib.drop / "again.safetensors", samples.lora(1))
    assert outcomes(lib.run()) == {"again.safetensors": "duplicate"}


def test_what_is_no_model_is_looked_at_once(lib, monkeypatch):
    page = lib.folder("lora") / "page.safetensors"
    page.parent.mkdir()
    page.write_bytes(b"<html>" * 10_000)
    opened = []
    usual = duplicates.open_model
    monkeypatch.setattr(duplicates, "open_model", lambda path: (opened.append(path), usual(path))[1])
    for seed in (1, 2):
        save(lib.drop / f"{seed}.safetensors", samples.lora(seed))
        lib.run()
    assert opened.count(page) == 1


def test_two_in_one_run(lib):
    for name in ("a", "b"):
        save(lib.drop / f"{name}.safetensors", samples.lora())
    assert lib.run().counts == {"written": 1, "duplicate": 1}


@pytest.mark.parametrize("odd", [[1], {"a": 1}, None, 5])
@pytest.mark.parametrize("place", [("kept", "target"), ("models", "table"), ("models", "fingerprint")])
def test_a_cache_that_holds_other_things_than_it_should_is_found_out_again(lib, place, odd):
    """It lies in a folder that people unpack downloads into."""
    save(lib.drop / "a.safetensors", samples.lora())
    lib.run(sources="keep")
    cache = lib.drop / duplicates.CACHE
    told = json.loads(cache.read_text())
    for record in told[place[0]].values():
        record[place[1]] = odd
    cache.write_text(json.dumps(told))
    save(lib.drop / "b.safetensors", samples.lora())
    assert waiting(lib.policy(sources="keep"))
    assert outcomes(lib.run(sources="keep"))["b.safetensors"] == "duplicate"


def test_what_was_found_out_is_remembered_by_path_size_and_time(lib, monkeypatch):
    for seed in range(3):
        save(lib.folder("lora") / f"{seed}.safetensors", samples.lora(seed, "<f2"))
    opened = []
    original = duplicates.open_model
    monkeypatch.setattr(duplicates, "open_model", lambda path: opened.append(path.name) or original(path))
    save(lib.drop / "a.safetensors", samples.lora(7))
    lib.run()
    assert sorted(opened) == ["0.safetensors", "1.safetensors", "2.safetensors"]
    opened.clear()
    save(lib.drop / "b.safetensors", samples.lora(8))
    lib.run()
    assert opened == []
    save(lib.folder("lora") / "1.safetensors", samples.lora(9, "<f2"))
    save(lib.drop / "c.safetensors", samples.lora(9))
    assert lib.run().counts == {"duplicate": 1}
    assert set(opened) == {"1.safetensors"}


SCHEMA = f'"schema": {duplicates.SCHEMA}'
JUNK = ["", "{", "[]", f"{{{SCHEMA}}}", f'{{{SCHEMA}, "kept": 3, "models": {{"a": 1}}}}']
JUNK += [f'{{{SCHEMA}, "kept": {{"a": [1, 2]}}, "models": {{}}}}', '{"schema": 1, "kept": {}, "models": {}}']


@pytest.mark.parametrize("content", JUNK)
def test_a_cache_that_cannot_be_read_is_made_anew(lib, content):
    (lib.drop / duplicates.CACHE).write_text(content)
    save(lib.folder("lora") / "there.safetensors", samples.lora(dtype="<f2"))
    save(lib.drop / "again.safetensors", samples.lora())
    assert lib.run().counts == {"duplicate": 1}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_in_the_target_folder_to_the_file_itself_is_none(lib):
    path = save(lib.drop / "a.safetensors", samples.lora(dtype="<f2"))
    lib.folder("lora").mkdir()
    (lib.folder("lora") / "a.safetensors").symlink_to(path)
    (step,) = lib.run().steps
    assert step.outcome == "left" and "link" in step.reason
    assert (lib.folder("lora") / "a.safetensors").is_file()


def test_a_duplicate_tells_of_no_changes(lib):
    arrays = {**samples.lora(), "extra": np.ones(3, "<f4"), "what": np.empty((0, 2), "<f4")}
    save(lib.drop / "a.safetensors", arrays)
    (written,) = lib.run().steps
    assert written.changed and any("unknown tensor" in finding for finding in written.findings)
    save(lib.drop / "b.safetensors", arrays)
    dry = run_once(lib.policy(), pause=0.01, dry=True)
    for step in (*dry.steps, *lib.run().steps):
        assert "a.safetensors holds the same already" in step.reason
        assert not (step.changed or step.removed or any("unknown tensor" in finding for finding in step.findings))
        assert set(step.findings) < set(written.findings)


def test_other_metadata_of_a_duplicate_are_told_of(lib):
    arrays = samples.lora(dtype="<f2")
    save(lib.drop / "a.safetensors", arrays, {"author": "somebody"})
    assert lib.run().counts == {"moved": 1}
    save(lib.drop / "b.safetensors", arrays, {"author": "somebody", "modelspec.prediction_type": "v"})
    (step,) = lib.run().steps
    assert step.outcome == "duplicate"
    assert any("modelspec.prediction_type" in finding for finding in step.findings)
    assert not any("author" in finding for finding in step.findings)


def test_a_duplicate_whose_equal_cannot_be_opened_any_more_is_not_to_blame(lib, monkeypatch):
    arrays = samples.lora(dtype="<f2")
    save(lib.drop / "a.safetensors", arrays)
    assert lib.run().counts == {"moved": 1}
    save(lib.drop / "b.safetensors", arrays, {"author": "somebody"})
    usual = processing.open_model

    def opened(path):
        if path.name == "a.safetensors":
            raise FormatError("it went away")
        return usual(path)

    monkeypatch.setattr(processing, "open_model", opened)
    assert lib.run().counts == {"duplicate": 1}
    assert lib.files("Autoprune") == ["Autoprune/Done/b.safetensors"]


@pytest.mark.parametrize("other", ["safetensors", "ckpt"])
def test_a_dry_run_says_what_may_be_a_duplicate_of_what_comes_before(lib, other):
    save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "b" / f"again.{other}", samples.lora(dtype="<f2"))
    save(lib.drop / "c.safetensors", samples.lora(seed=1))
    dry = {step.file: step for step in run_once(lib.policy(), pause=0.01, dry=True).steps}
    real = {step.file: step for step in lib.run().steps}
    assert real[f"b/again.{other}"].outcome == "duplicate"
    assert "would be a.safetensors" in dry[f"b/again.{other}"].reason
    assert {name: step.target for name, step in dry.items()} == {name: step.target for name, step in real.items()}
    assert not dry["c.safetensors"].reason


@pytest.mark.parametrize("value", [1e6, 1e-12])
def test_a_file_whose_tensors_keep_their_type_is_known_again(lib, value):
    """That they do is seen only while the file is written."""
    arrays = samples.lora(1)
    key = next(key for key in arrays if "lora_up" in key)
    arrays[key] = np.full_like(arrays[key], value)
    save(lib.drop / "a.safetensors", arrays)
    lib.run()
    first = (lib.folder("lora") / "a.safetensors").read_bytes()
    assert arrays_of(lib.folder("lora") / "a.safetensors")[key].dtype == np.float32
    for name, run in (("b", lib.run), ("a", lib.run)):
        save(lib.drop / f"{name}.safetensors", arrays)
        (step,) = run().steps
        assert (step.outcome, step.target) == ("duplicate", str(lib.folder("lora") / "a.safetensors"))
        assert not (step.target_hashes or step.changed or step.removed)
        assert step.hashes["sha256"] == hashlib.sha256((lib.drop / step.source).read_bytes()).hexdigest()
    assert lib.files("Lora") == ["Lora/a.safetensors"]
    assert (lib.folder("lora") / "a.safetensors").read_bytes() == first
    arrays[key][0] = 0.5
    save(lib.drop / "c.safetensors", arrays)
    assert outcomes(lib.run()) == {"c.safetensors": "written"}
