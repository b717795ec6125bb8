"""What is taken and what is not: growing files, downloads, links, pipes, folders of other programs."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from lib_toolkit.autoprune import foreseeing, hashes, looking, run_once, waiting, watch, writers
from lib_toolkit.errors import CancelledError, UsageError
from lib_toolkit.progress import Progress
from tests.autoprune import samples
from tests.autoprune.samples import age, library, save
from tests.making import of_arrays, safetensors_bytes


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def test_a_file_that_grows_waits_for_a_later_run(lib):
    whole = save(lib.root / "whole.safetensors", samples.lora()).read_bytes()
    path, stop = lib.drop / "slow.safetensors", threading.Event()
    save(lib.drop / "ready.safetensors", samples.lora(seed=1))

    def drip():
        with path.open("wb", buffering=0) as file:
            for begin in range(0, len(whole), 500):
                file.write(whole[begin : begin + 500])
                if stop.wait(0.02):
                    file.write(whole[begin + 500 :])
                    return

    writer = threading.Thread(target=drip)
    writer.start()
    while not path.exists():
        time.sleep(0.01)
    run = run_once(lib.policy(), pause=0.3)
    assert {step.file: step.outcome for step in run.steps} == {
        "ready.safetensors": "written", "slow.safetensors": "waiting",
    }  # fmt: skip
    assert path.exists()
    stop.set()
    writer.join()
    assert path.read_bytes() == whole
    assert lib.run().counts == {"written": 1}


def test_a_file_that_changes_while_it_is_processed_stays(lib, monkeypatch):
    """Neither a broken result nor a failure: it is taken up again when it is stable."""
    from lib_toolkit.autoprune import processing

    path = save(lib.drop / "a.safetensors", samples.lora())
    original = processing.judge

    def meanwhile(model, policy):
        path.write_bytes(path.read_bytes() + b"more")
        return original(model, policy)

    monkeypatch.setattr(processing, "judge", meanwhile)
    (step,) = lib.run().steps
    assert step.outcome == "waiting"
    assert lib.files() == ["Autoprune/a.safetensors"]
    assert lib.temporary() == []


PARTIAL = [
    ".part", ".crdownload", ".tmp", ".download", ".partial", ".incomplete", ".opdownload", ".!qB", ".!ut", ".bc!",
    ".fdmdownload", ".xltd", ".td.cfg", ".downloading", ".part.3", ".part12", ".part-Frag4", ".part-Frag4.part",
]  # fmt: skip


@pytest.mark.parametrize("suffix", PARTIAL)
def test_downloads_are_left_where_they_are(lib, suffix):
    (lib.drop / f"a.safetensors{suffix}").write_bytes(b"half")
    (step,) = lib.run().steps
    assert (step.outcome, step.file) == ("waiting", f"a.safetensors{suffix}")
    assert lib.files() == [f"Autoprune/a.safetensors{suffix}"]


SIBLINGS = [
    "a.safetensors.aria2", "a.aria2", "a.fE3x.safetensors.part", "a.safetensors.part", "a.safetensors.st",
    "A.safetensors.ST", "a.safetensors.fdmdownload", "a.safetensors.xltd", "a.safetensors.part.2", "a.safetensors.lock",
    "a.safetensors.lftp-pget-status",
]  # fmt: skip


@pytest.mark.parametrize("sibling", SIBLINGS)
def test_a_model_with_a_download_beside_it_waits(lib, sibling):
    save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "ab.safetensors", samples.lora(seed=1))
    (lib.drop / sibling).write_bytes(b"")
    steps = {step.file: step for step in lib.run().steps}
    assert steps["a.safetensors"].outcome == "waiting"
    assert sibling in steps["a.safetensors"].reason
    assert steps["ab.safetensors"].outcome == "written"
    (lib.drop / sibling).unlink()
    assert lib.run().counts == {"written": 1}


def test_the_state_of_a_download_is_no_model(lib):
    """axel writes NAME.st beside a file of full size with holes in it; the like of it without NAME is a model."""
    whole = save(lib.drop / "big.safetensors", samples.lora()).read_bytes()
    (lib.drop / "big.safetensors").write_bytes(whole[:20_000] + bytes(len(whole) - 20_000))
    (lib.drop / "big.safetensors.st").write_bytes(bytes(16))
    save(lib.drop / "other.st", samples.lora(seed=1))
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {"big.safetensors": "waiting", "other.st": "written"}
    assert "big.safetensors.st beside it" in steps["big.safetensors"].reason
    assert lib.files("Autoprune") == [
        "Autoprune/Done/other.st", "Autoprune/big.safetensors", "Autoprune/big.safetensors.st",
    ]  # fmt: skip


def test_the_folder_of_a_download_waits_as_a_whole(lib):
    """Safari keeps what it has so far in one."""
    path = save(lib.drop / "sub" / "a.safetensors.download" / "a.safetensors", samples.lora())
    (path.parent / "Info.plist").write_text("<plist/>")
    (step,) = lib.run().steps
    assert (step.file, step.outcome) == ("sub/a.safetensors.download", "waiting")
    assert path.is_file()
    path.parent.rename(path.parent.with_name("a"))
    assert lib.run().counts == {"written": 1, "left": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux and Windows tell of writers")
def test_a_file_that_a_program_writes_to_waits_though_it_pauses(lib):
    path = save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "b.safetensors", samples.lora(seed=1))
    whole = path.read_bytes()
    with path.open("wb", buffering=0) as file:
        file.write(whole[:20_000])
        age(path)
        steps = {step.file: step for step in lib.run().steps}
        assert {name: step.outcome for name, step in steps.items()} == {
            "a.safetensors": "waiting", "b.safetensors": "written",
        }  # fmt: skip
        assert "Another program holds it open" in steps["a.safetensors"].reason
        file.write(whole[20_000:])
    assert lib.run().counts == {"written": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has leases")
def test_a_refused_lease_tells_nothing_where_a_server_grants_them(tmp_path, monkeypatch):
    path = tmp_path / "a share" / "a.bin"
    path.parent.mkdir()
    with path.open("wb"):
        assert writers.is_held(path)
        share = str(path.parent).replace(" ", "\\040")
        for kind, held in (("ext4", True), ("nfs4", False), ("cifs", False)):
            mounts = f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {share} rw shared:1 - {kind} server:/x rw\n"
            monkeypatch.setattr(Path, "read_text", lambda *args, mounts=mounts: mounts)
            assert writers.is_held(path) is held, kind
            monkeypatch.undo()
    assert not writers.is_held(path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_special_files_are_reported_and_left_alone(lib, tmp_path):
    elsewhere = save(tmp_path / "elsewhere" / "real.safetensors", samples.lora())
    before = elsewhere.read_bytes()
    (lib.drop / "link.safetensors").symlink_to(elsewhere)
    (lib.drop / "folder").symlink_to(elsewhere.parent)
    (lib.drop / "dangling.safetensors").symlink_to(tmp_path / "nothing")
    os.mkfifo(lib.drop / "pipe.safetensors")
    (lib.drop / "dir.safetensors").mkdir()
    run = lib.run()
    assert {step.file: step.outcome for step in run.steps} == dict.fromkeys(
        ("link.safetensors", "folder", "dangling.safetensors", "pipe.safetensors"), "left"
    )
    assert elsewhere.read_bytes() == before
    assert len(list(lib.drop.iterdir())) >= 5
    assert (lib.drop / "link.safetensors").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_drop_folder_that_is_a_link_works(lib, tmp_path):
    real = tmp_path / "other disk"
    lib.drop.rename(real)
    lib.drop.symlink_to(real)
    save(real / "a.safetensors", samples.lora())
    assert lib.run().counts == {"written": 1}
    assert (real / "Done" / "a.safetensors").is_file()


def test_diffusers_folders_other_files_and_hidden_ones_stay(lib):
    save(lib.drop / "pipe" / "unet" / "diffusion_pytorch_model.safetensors", samples.lora())
    (lib.drop / "pipe" / "model_index.json").write_text("{}")
    (lib.drop / "readme.txt").write_text("x")
    (lib.drop / "archive.zip").write_bytes(b"PK")
    save(lib.drop / ".hidden.safetensors", samples.lora())
    before = sorted(lib.drop.rglob("*"))
    assert [(step.file, step.outcome) for step in lib.run().steps] == [
        ("archive.zip", "left"), ("pipe", "left"), ("readme.txt", "left"),
    ]  # fmt: skip
    assert set(before) <= set(lib.drop.rglob("*"))
    assert not (lib.drop / "journal.jsonl").exists(), "nothing was done"


def test_waiting_tells_what_lies_there_without_touching_it(lib):
    assert waiting(lib.policy()) == ()
    save(lib.drop / "b" / "a.safetensors", samples.lora())
    (lib.drop / "x.ckpt.crdownload").write_bytes(b"")
    told = {step.file: (step.outcome, step.reason) for step in waiting(lib.policy())}
    assert told["b/a.safetensors"] == ("waiting", "The next run deals with it.")
    assert "download" in told["x.ckpt.crdownload"][1]
    assert not (lib.drop / "journal.jsonl").exists()


def test_an_absent_drop_folder_is_made_but_not_its_parents(tmp_path):
    lib = library(tmp_path / "models")
    lib.drop.rmdir()
    assert lib.run().steps == ()
    assert lib.drop.is_dir()
    from dataclasses import replace

    with pytest.raises(UsageError, match="drop folder"):
        run_once(replace(lib.policy(), drop=tmp_path / "typo" / "Autoprune"))
    assert not (tmp_path / "typo").exists()


def test_a_dry_run_changes_nothing(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "clean.safetensors", samples.lora(seed=1, dtype="<f2"))
    (lib.drop / "bad.ckpt").write_text("<html>")
    before = sorted((path, path.stat().st_mtime_ns) for path in lib.root.rglob("*"))
    run = run_once(lib.policy(), pause=0.01, dry=True)
    steps = {step.file: step for step in run.steps}
    assert {step.outcome for step in run.steps} == {"planned"}
    assert steps["a.safetensors"].target == str(lib.folder("lora") / "a.safetensors")
    assert "web page" in steps["bad.ckpt"].reason
    assert sorted((path, path.stat().st_mtime_ns) for path in lib.root.rglob("*")) == before
    real = {step.file: step for step in lib.run().steps}
    assert {name: step.foreseen for name, step in steps.items()} == {name: step.outcome for name, step in real.items()}
    for name in ("a.safetensors", "clean.safetensors"):
        assert steps[name].target_size == real[name].target_size


def test_watch_takes_files_as_they_become_stable_and_ends_when_cancelled(lib):
    stop, steps = threading.Event(), []

    def report(step):
        steps.append((step.file, step.outcome))
        if step.outcome == "written" and step.file == "b.safetensors":
            stop.set()
        elif step.outcome == "written":
            save(lib.drop / "b.safetensors", samples.lora(seed=1))

    (lib.drop / "x.ckpt.part").write_bytes(b"")
    save(lib.drop / "a.safetensors", samples.lora())
    with pytest.raises(CancelledError):
        watch(lib.policy(), 0.05, Progress(cancelled=stop.is_set), report)
    assert ("a.safetensors", "written") in steps
    assert ("b.safetensors", "written") in steps
    assert lib.files("Lora") == ["Lora/a.safetensors", "Lora/b.safetensors"]


def test_a_file_that_grows_while_its_failure_is_dealt_with_stays(lib, monkeypatch):
    path = lib.drop / "half.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(samples.lora()))[:-10])
    age(path)
    original = hashes.of_unusable

    def meanwhile(*args):
        found = original(*args)
        with path.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(hashes, "of_unusable", meanwhile)
    (step,) = lib.run().steps
    assert step.outcome == "waiting"
    assert lib.files() == ["Autoprune/half.safetensors"]


@pytest.mark.parametrize("other", ["a.5.safetensors.part", "a.fp16.safetensors.part", "a.b.c.ckpt.crdownload"])
def test_a_download_of_another_model_holds_nothing_up(lib, other):
    save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / other).write_bytes(b"")
    assert {step.file: step.outcome for step in lib.run().steps} == {other: "waiting", "a.safetensors": "written"}


def test_what_is_not_named_like_a_model_is_told_of(lib):
    names = ("noext", "m.safetensors.1", "q.safetensors?type=Model", "z.gguf")
    for name in ("Thumbs.db", "a.ckpt.why.txt", "journal.1.jsonl"):
        (lib.drop / name).write_text("not worth a word")
    for name in names:
        save(lib.drop / name, samples.lora())
    assert {step.file: step.outcome for step in lib.run().steps} == dict.fromkeys(names, "left")
    assert {step.file for step in waiting(lib.policy())} == set(names)


def test_a_dry_run_counts_and_can_be_stopped(lib):
    sizes = [save(lib.drop / f"{seed}.safetensors", samples.lora(seed)).stat().st_size for seed in range(3)]
    told, steps = [], []
    run_once(lib.policy(), Progress(told.append), pause=0.01, dry=True)
    assert {(status.phase, status.total) for status in told} == {("looking at what waits in Autoprune", sum(sizes))}
    assert told[-1].done == sum(sizes)
    with pytest.raises(CancelledError):
        run_once(lib.policy(), Progress(cancelled=lambda: bool(steps)), steps.append, pause=0.01, dry=True)
    assert len(steps) == 1


def test_a_dry_run_does_not_blame_a_file_that_a_run_takes_away(lib, monkeypatch):
    gone = save(lib.drop / "gone.safetensors", samples.lora())
    usual = foreseeing.open_model

    def late(path):
        gone.unlink(missing_ok=True)
        return usual(path)

    monkeypatch.setattr(foreseeing, "open_model", late)
    (step,) = run_once(lib.policy(), pause=0.01, dry=True).steps
    assert (step.outcome, step.foreseen) == ("waiting", "") and "taken away" in step.reason


def test_a_dry_run_knows_its_own_answers(lib):
    save(lib.drop / "a.ckpt", samples.lora())
    save(lib.drop / "a.safetensors", samples.lora(seed=1))
    steps = run_once(lib.policy(), pause=0.01, dry=True).steps
    assert [step.target for step in steps] == [
        str(lib.folder("lora") / name) for name in ("a.safetensors", "a(1).safetensors")
    ]


def test_what_belongs_to_no_model_is_told_of(lib):
    save(lib.drop / "comp" / "vae" / "model.safetensors", samples.lora())
    lonely = ["big.safetensors.index.json", "comp/vae/config.json", "gone.png", "gone.civitai.info"]
    silent = ["coming.png", "coming.safetensors.json", "z.json"]
    for name in [*lonely, *silent]:
        (lib.drop / name).write_text("x")
    (lib.drop / "coming.safetensors.crdownload").write_bytes(b"")
    (lib.drop / "z.gguf").write_bytes(b"GGUF")
    steps = {step.file: step for step in lib.run().steps}
    told = {"comp/vae/model.safetensors": "written", "coming.safetensors.crdownload": "waiting", "z.gguf": "left"}
    assert {name: step.outcome for name, step in steps.items()} == {**told, **dict.fromkeys(lonely, "left")}
    assert all("no model of its name" in steps[name].reason for name in lonely)
    assert all((lib.drop / name).read_text() == "x" for name in [*lonely, *silent])


def test_watch_tells_of_what_is_left_alone_once(lib):
    steps, looks = [], 0

    def cancelled():
        nonlocal looks
        looks += 1
        return looks > 200

    (lib.drop / "gone.png").write_text("x")
    with pytest.raises(CancelledError):
        watch(lib.policy(), 0.01, Progress(cancelled=cancelled), steps.append)
    assert [step.file for step in steps] == ["gone.png"]


def test_folders_that_lie_too_deep_are_told_of(lib):
    deep = Path(*"abcdefghijklmnop")
    save(lib.drop / deep / "a.safetensors", samples.lora())
    save(lib.drop / deep / "q" / "b.safetensors", samples.lora(seed=1))
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {
        f"{deep.as_posix()}/a.safetensors": "written", f"{deep.as_posix()}/q": "left",
    }  # fmt: skip
    assert "more than 16 folders deep" in steps[f"{deep.as_posix()}/q"].reason
    assert (lib.drop / deep / "q" / "b.safetensors").is_file()


def test_folders_beyond_the_most_files_are_told_of(lib, monkeypatch):
    monkeypatch.setattr(looking, "_MOST", 1)
    save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "sub" / "b.safetensors", samples.lora(seed=1))
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {"a.safetensors": "written", "sub": "left"}
    assert "not looked into" in steps["sub"].reason
    (lib.drop / "journal.jsonl").unlink()
    assert {step.file: step.outcome for step in lib.run().steps} == {"sub/b.safetensors": "written"}


@pytest.mark.parametrize("call", ["scandir", "lstat"])
def test_folders_and_files_that_cannot_be_read_are_told_of(lib, monkeypatch, call):
    save(lib.drop / "shut" / "a.safetensors", samples.lora())
    save(lib.drop / "b.safetensors", samples.lora(seed=1))
    if call == "scandir":
        usual = os.scandir

        def scandir(path):
            if Path(path).name == "shut":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return usual(path)

        monkeypatch.setattr(os, "scandir", scandir)
    else:
        original = Path.lstat

        def lstat(self):
            if self.name == "a.safetensors":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return original(self)

        monkeypatch.setattr(Path, "lstat", lstat)
    steps = {step.file: step for step in lib.run().steps}
    name = "shut" if call == "scandir" else "shut/a.safetensors"
    assert {name: step.outcome for name, step in steps.items()} == {"b.safetensors": "written", name: "left"}
    assert os.strerror(errno.EACCES) in steps[name].reason
    assert "give" in steps[name].reason


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_done_and_failed_may_be_links_to_another_place(lib, tmp_path):
    for name in ("Done", "Failed"):
        (tmp_path / name).mkdir()
        (lib.drop / name).symlink_to(tmp_path / name)
    before = save(lib.drop / "a.safetensors", samples.lora()).read_bytes()
    (lib.drop / "b.ckpt").write_text("<html>")
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {"a.safetensors": "written", "b.ckpt": "failed"}
    assert (tmp_path / "Done" / "a.safetensors").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "Failed").iterdir()) == ["b.ckpt", "b.ckpt.why.txt"]
    assert lib.run().steps == ()
    assert waiting(lib.policy()) == ()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_called_done_that_leads_nowhere_is_told_of(lib, tmp_path):
    (lib.drop / "Done").symlink_to(tmp_path / "nowhere")
    source = save(lib.drop / "a.safetensors", samples.lora())
    steps = {step.file: step for step in lib.run().steps}
    assert steps["Done"].outcome == "left"
    assert steps["a.safetensors"].outcome == "written"
    assert any("stays where it is" in finding for finding in steps["a.safetensors"].findings)
    assert source.is_file()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.gguf", "as safetensors"),
        ("a.onnx", "ONNX Runtime"),
        ("a.engine", "TensorRT"),
        ("a.zip", "unpack it"),
        ("a.7z", "unpack it"),
        ("a.RAR", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.model", "give it the ending"),
    ],
)
def test_what_is_said_of_other_endings_helps(lib, name, advice):
    (lib.drop / name).write_bytes(b"x")
    (step,) = lib.run().steps
    assert step.outcome == "left"
    assert advice in step.reason
    assert advice == "give it the ending" or "ending" not in step.reason
