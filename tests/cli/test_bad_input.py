"""Bad input: one sentence that names the file and the way out, exit status 2, nothing executed, nothing written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.cli.main import main
from tests.making import of_arrays, safetensors_bytes

GOOD = safetensors_bytes(of_arrays({"a": np.ones(1000, "<f4"), "b": np.zeros((3, 4), "<f2")}), {"format": "pt"})


class Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def zipped(entries: dict[str, bytes], **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def evil_checkpoint(folder: Path) -> bytes:
    content = {"state_dict": {"w": 1}, "x": Evil(str(folder / "ran"))}
    return zipped({"archive/data.pkl": pickle.dumps(content, 2), "archive/version": b"3\n"})


def encrypted() -> bytes:
    raw = bytearray(zipped({"archive/data.pkl": pickle.dumps({}, 2)}))
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def multi_disk() -> bytes:
    raw = bytearray(zipped({"archive/data.pkl": pickle.dumps({}, 2)}))
    struct.pack_into("<HH", raw, raw.index(b"PK\x05\x06") + 4, 1, 1)
    return bytes(raw)


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def with_table(table, data=b"") -> bytes:
    raw = json.dumps(table).encode()
    return len(raw).to_bytes(8, "little") + raw + data


BAD = {
    "truncated": lambda f: GOOD[: len(GOOD) // 2],
    "truncated header": lambda f: GOOD[:40],
    "empty": lambda f: b"",
    "one byte": lambda f: b"\x80",
    "web page": lambda f: b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>" + b" " * 500,
    "Git LFS pointer": lambda f: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7703807346\n",
    "zeros": lambda f: bytes(1 << 20),
    "random bytes": lambda f: np.random.default_rng(0).bytes(5000),
    "encrypted zip": lambda f: encrypted(),
    "multi-disk zip": lambda f: multi_disk(),
    "zip without a model": lambda f: zipped({"readme.txt": b"hello"}),
    "truncated zip": lambda f: evil_checkpoint(f)[:-10],
    "header that lies": lambda f: with_table({"a": entry([1000], 0, 4000)}, bytes(400)),
    "overlapping tensors": lambda f: with_table({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "pickle that runs code": evil_checkpoint,
    "bare pickle that runs code": lambda f: pickle.dumps(Evil(str(f / "ran")), 2),
    "pickle without tensors": lambda f: pickle.dumps({"a": 1}, 2),
    "GGUF": lambda f: b"GGUF" + bytes(100),
    "index of shards": lambda f: json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00002"}}).encode(),
}


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("verb", ["inspect", "prune", "convert"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_file(tmp_path, capsys, kind, verb, name):
    path = tmp_path / name
    path.write_bytes(BAD[kind](tmp_path))
    before = path.read_bytes()
    assert main([verb, str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert name in captured.err
    assert "Traceback" not in captured.err
    assert "unforeseen" not in captured.err
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before


def test_the_name_that_would_run_is_told(tmp_path, capsys):
    path = tmp_path / "model.ckpt"
    path.write_bytes(evil_checkpoint(tmp_path))
    assert main(["inspect", str(path)]) == 2
    assert f"{os.name}.system" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_key_that_asks_for_a_billion_blocks(tmp_path, capsys):
    """Not refused: it is an unknown model; but no work grows with the number in its key."""
    tensors = {f"model.diffusion_model.{side}_blocks.{n}.0.in_layers.0.weight": np.ones(4, "<f4")
               for side in ("input", "output") for n in (0, 999_999_999)}  # fmt: skip
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = np.ones((320, 4, 3, 3), "<f4")
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(tensors)))
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intact"] is False


@pytest.mark.parametrize("verb", ["inspect", "prune", "convert"])
def test_paths_that_are_no_files(tmp_path, capsys, verb):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "model_index.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe.ckpt")
    for name, word in (
        ("folder.safetensors", "folder"),
        ("missing.ckpt", "does not exist"),
        ("diffusers", "diffusers folder"),
        ("pipe.ckpt", "regular file"),
        ("nul\0byte", "cannot be opened"),
        ("x" * 300 + ".ckpt", "cannot be opened"),
    ):
        assert main([verb, str(tmp_path / name)]) == 2
        captured = capsys.readouterr()
        assert word in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.safetensors"
    path.write_bytes(GOOD)
    return path


@pytest.mark.parametrize("way", ["same", "symlink", "hard link"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_target_is_the_source(good, tmp_path, capsys, way, force):
    target = good if way == "same" else tmp_path / "other.safetensors"
    if way == "symlink":
        target.symlink_to(good)
    elif way == "hard link":
        target.hardlink_to(good)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert main(["prune", str(good), "-o", str(target), *force]) == 2
    assert "source itself" in capsys.readouterr().err
    assert good.read_bytes() == GOOD
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("missing/b.safetensors", "does not exist"),
        ("b", "must end in"),
        ("b.txt", "must end in"),
        ("CON.safetensors", "device name"),
        ("a|b.safetensors", "may not stand"),
        ("b .safetensors/", "folder"),
        ("x" * 300 + ".safetensors", "longer than"),
        ("good.safetensors/b.safetensors", "does not exist"),
    ],
)
def test_targets_that_cannot_be(good, tmp_path, capsys, output, word):
    assert main(["prune", str(good), "-o", f"{tmp_path}/{output}"]) == 2
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["good.safetensors"]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("", "-o is followed by no name; give that of the new file, or leave out -o."),
        (".", "{folder} is a folder; give the name of a file in it."),
        ("sub", "sub is a folder; give the name of a file in it."),
        ("good.safetensors", "good.safetensors is the source itself, which is never overwritten; choose another name."),
        ("other.ckpt", "other.ckpt exists already; choose another name, or replace it with --force."),
    ],
)
def test_names_of_the_result_that_are_none(good, tmp_path, capsys, monkeypatch, output, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.ckpt").write_bytes(b"x")
    assert main(["prune", "good.safetensors", "-o", output]) == 2
    assert capsys.readouterr().err == sentence.format(folder=tmp_path) + "\n"
    if output not in {"", "good.safetensors", "other.ckpt"}:
        for verb, source in (("flatten", good), ("unflatten", tmp_path / "other.ckpt")):
            assert main([verb, str(source), "-o", output]) == 2
            assert capsys.readouterr().err == sentence.format(folder=tmp_path) + "\n"


@pytest.mark.parametrize(
    "arguments",
    [["inspect", ""], ["prune", ""], ["flatten", "x", "-o", ""], ["demo", ""], ["ui", "--models-dir", ""]],
)
def test_an_empty_name_is_not_this_folder(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "the name is empty; give that of a file or folder" in error
    assert f"model-toolkit {arguments[0]} --help" in error
    assert list(tmp_path.iterdir()) == []


def test_a_loop_of_links(tmp_path, capsys):
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    assert main(["inspect", str(loop)]) == 2
    error = capsys.readouterr().err
    assert error == f"{loop} is a symbolic link in a circle, which leads to no file; name the file itself.\n"


def test_a_name_that_the_system_refuses_is_told_once(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / ("x" * 300))]) == 2
    error = capsys.readouterr().err
    assert error.count("x" * 300) == 1
    assert "Errno" not in error
    assert error.endswith("; check the name, or give another file.\n")


def test_no_space(good, tmp_path, capsys, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=100))
    assert main(["prune", str(good), "-o", str(tmp_path / "b.safetensors")]) == 2
    assert "make room" in capsys.readouterr().err


def test_no_rights(good, tmp_path, capsys, monkeypatch):
    """The superuser may do everything, so the system's own answer is given by hand."""
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if str(path) == str(good) or flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["inspect", str(good)]) == 2
    assert "permissions" in capsys.readouterr().err


def test_a_folder_without_rights(good, tmp_path, capsys, monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["prune", str(good), "-o", str(tmp_path / "b.safetensors")]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["prune"], ["prune", "x", "--precision", "fp3"], ["inspect", "--jsn", "x"],
     ["ui", "--models-dir", "/nonexistent"], ["ui", "--port", "banana"], ["convert", "x", "--format", "gguf"]],
)  # fmt: skip
def test_wrong_use_is_one_sentence(capsys, arguments):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(("model-toolkit", "The folder", "x ", "'x'"))


def test_format_and_name_must_agree(good, tmp_path, capsys):
    assert main(["prune", str(good), "-o", str(tmp_path / "b.ckpt"), "--format", "safetensors"]) == 2
    assert "make them agree" in capsys.readouterr().err


def test_names_from_files_cannot_move_the_cursor(tmp_path, capsys):
    key = "\x1b[2J\x1b]0;owned\x07\nmodel.\u202egpj"
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays({key: np.ones(3, "<f4")}), {key: "\x1b[31m"}))
    assert main(["inspect", str(path), "--keys"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b" in out
    assert main(["prune", str(path), "-o", str(tmp_path / "b.safetensors"), "--drop-unknown"]) in (0, 2)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err


def test_a_pickle_named_safetensors_is_read_with_a_warning(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.safetensors"
    torch.save({"w": torch.arange(6.0)}, path)
    assert main(["inspect", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["tensors"] == 1
    assert any("pickle" in warning for warning in result["warnings"])


def test_a_ckpt_without_tensors_is_not_written(tmp_path, capsys):
    path = tmp_path / "none.safetensors"
    path.write_bytes(safetensors_bytes({}, {}))
    assert main(["convert", str(path), "-o", str(tmp_path / "none.ckpt")]) == 2
    assert capsys.readouterr().err.startswith("none.safetensors holds no tensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["none.safetensors"]
    assert main(["convert", str(path), "-o", str(tmp_path / "copy.safetensors")]) == 0


def test_a_source_with_an_odd_name_gets_a_result_with_a_plain_one(good, tmp_path):
    odd = tmp_path / ".odd:name?.safetensors"
    odd.write_bytes(good.read_bytes())
    assert main(["prune", str(odd)]) == 0
    assert (tmp_path / "odd_name_-pruned.safetensors").exists()
