"""Where a file may go, and that nothing is ever lost on the way there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lib_toolkit import temporary
from lib_toolkit.errors import TakenError, TargetError, UsageError
from lib_toolkit.target import check_target, free_name, safe_output_name
from lib_toolkit.temporary import TemporaryFile, remove_stale

BAD_NAMES = [
    "", ".", "..", "a/b", "a\\b", "../x.safetensors", "/etc/x", "C:\\x.safetensors", "c:x", "a\0b", "a\nb", "x ", " x",
    "x.", "CON", "con.safetensors", "nul", "LPT1.ckpt", "COM9", "aux.txt", "x" * 256, "ü" * 128, "a\u202egpj.ckpt",
    "a*b", "a?b", 'a"b', "a<b", "a|b", "\x7f", "a\u200fb", "\ud800.ckpt", ".x.ckpt",
]  # fmt: skip
GOOD_NAMES = ["model.safetensors", "Anything-v3.0.ckpt", "模型.safetensors", "a b.ckpt", "constant.ckpt", "x" * 255]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_in_one_sentence(name):
    with pytest.raises(UsageError) as error:
        safe_output_name(name)
    assert "\n" not in str(error.value).replace(repr(name), "")


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names_stay(name):
    assert safe_output_name(name) == name


def test_existing_file_is_refused_and_allowed_with_force(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(TargetError, match="exists already"):
        check_target(path, 10)
    assert check_target(path, 10, force=True) == path
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("way", ["same", "symlink", "hard link", "dotted"])
def test_the_source_is_never_a_target(tmp_path, way):
    source = tmp_path / "a.safetensors"
    source.write_bytes(b"data")
    path = {"same": source, "dotted": tmp_path / ".." / tmp_path.name / "a.safetensors"}.get(way, tmp_path / "b.ckpt")
    if way == "symlink":
        path.symlink_to(source)
    elif way == "hard link":
        path.hardlink_to(source) if hasattr(os, "link") else pytest.skip("no hard links here")
    with pytest.raises(TargetError, match="source itself"):
        check_target(path, 10, (source,), force=True)
    assert source.read_bytes() == b"data"


def test_other_targets_that_cannot_be(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "used.safetensors").write_bytes(b"x")
    with pytest.raises(TargetError, match="does not exist"):
        check_target(tmp_path / "missing" / "a.safetensors", 10)
    with pytest.raises(TargetError, match="is a folder"):
        check_target(tmp_path / "folder.safetensors", 10)
    with pytest.raises(TargetError, match="make room"):
        check_target(tmp_path / "a.safetensors", 1 << 60)
    with pytest.raises(TargetError, match="loaded"):
        check_target(tmp_path / "used.safetensors", 10, force=True, in_use=lambda path: path.name.startswith("used"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.safetensors", "used.safetensors"]


def test_the_room_that_is_kept_free_is_named(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=23_068_672))
    assert check_target(tmp_path / "a.safetensors", 6_291_456) == tmp_path / "a.safetensors"
    with pytest.raises(TargetError) as error:
        check_target(tmp_path / "a.safetensors", 7_582_718)
    assert str(error.value).endswith(
        "takes 7,582,718 bytes, beside which 16,777,216 must stay free, and its folder has 23,068,672 free; "
        "make room, or choose another disk."
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(TargetError, match="takes no files"):
        check_target(tmp_path / "a.safetensors", 10)


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="writes go through handles here")
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize(("number", "way_out"), [(errno.ENOSPC, "make room"), (errno.EFBIG, "another disk")])
def test_a_write_that_fails_names_the_whole_path_and_a_way_out(tmp_path, monkeypatch, call, number, way_out):
    path = tmp_path / "a.bin"

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    with pytest.raises(TargetError) as error, TemporaryFile(path) as file:
        monkeypatch.setattr(os, call, fail)
        file.write_at(0, memoryview(b"abc"))
        file.sync()
    assert str(error.value).startswith(f"{path} could not be written ({os.strerror(number)}), and nothing was kept; ")
    assert way_out in str(error.value)


def test_a_loop_of_links_can_be_replaced(tmp_path):
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    with pytest.raises(TakenError):
        check_target(loop, 3)
    with TemporaryFile(check_target(loop, 3, force=True)) as file:
        file.write_at(0, memoryview(b"new"))
        file.commit(force=True)
    assert loop.read_bytes() == b"new"


def test_a_symlink_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "m.safetensors"
    real.write_bytes(b"old")
    link = tmp_path / "link.safetensors"
    link.symlink_to(real)
    path = check_target(link, 3, force=True)
    with TemporaryFile(path) as file:
        file.write_at(0, memoryview(b"new"))
        file.commit(force=True)
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_commit_and_what_an_error_leaves(tmp_path):
    path = tmp_path / "a.bin"
    with TemporaryFile(path) as file:
        file.write_at(3, memoryview(b"def"))
        file.write_at(0, memoryview(b"abc"))
        file.sync()
        assert not path.exists()
        file.commit()
    assert path.read_bytes() == b"abcdef"
    with pytest.raises(RuntimeError), TemporaryFile(tmp_path / "b.bin") as file:
        file.write_at(0, memoryview(b"abc"))
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_name_taken_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(TakenError, match="meanwhile"), TemporaryFile(path) as file:
        file.write_at(0, memoryview(b"mine"))
        path.write_bytes(b"theirs")
        file.commit()
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"theirs"


def _let_nothing_go(monkeypatch) -> None:
    """Files may be made and not removed or renamed, as with the attribute ``a`` of Linux or on write-once shares."""

    def refuse(*given, **named):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("unlink", "rename"):
        monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(Path, name, refuse)


@pytest.mark.skipif(not hasattr(os, "link"), reason="makes a hard link")
def test_a_name_of_our_own_is_no_rival(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    with monkeypatch.context() as patch, TemporaryFile(path) as file:
        file.write_at(0, memoryview(b"mine"))
        file.sync()
        _let_nothing_go(patch)
        with pytest.raises(TargetError, match="is in place, but its folder lets nothing be removed or renamed") as told:
            file.commit()
        assert not isinstance(told.value, TakenError)
        assert "give the folder the rights" in str(told.value)
    assert path.read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == sorted([path, file.path])
    assert remove_stale(tmp_path) == [file.path], "once the folder has the rights"


def test_a_temporary_file_that_cannot_go_takes_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary, "_PATIENCE", 0.0)
    if hasattr(os, "link"):
        monkeypatch.delattr(os, "link")
    with monkeypatch.context() as patch:
        _let_nothing_go(patch)
        with pytest.raises(TargetError, match="could not be put in place"), TemporaryFile(tmp_path / "a.bin") as file:
            file.write_at(0, memoryview(bytes(5000)))
            file.commit()
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == 0


def test_umask_decides_the_rights(tmp_path):
    before = os.umask(0o022)
    try:
        with TemporaryFile(tmp_path / "a.bin") as file:
            file.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


WRITER = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from lib_toolkit.temporary import TemporaryFile
    with TemporaryFile(Path({folder!r}) / "a.bin") as file:
        file.write_at(0, memoryview(b"half"))
        print("ready", flush=True)
        time.sleep(60)
    """
)


def test_leftovers_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path):
    root = str(Path(__file__).parent.parent)
    code = WRITER.format(root=root, folder=str(tmp_path))
    dead, alive = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2))
    try:
        for process in (dead, alive):
            assert process.stdout.readline().strip() == b"ready"
        dead.kill()
        dead.wait()
        assert len(list(tmp_path.glob(".model-toolkit-*"))) == 2
        removed = remove_stale(tmp_path)
        assert len(removed) == 1
        assert f"-{dead.pid}-" in removed[0].name
        assert [f"-{alive.pid}-" in p.name for p in tmp_path.iterdir()] == [True]
    finally:
        for process in (dead, alive):
            process.kill()
            process.wait()
            process.stdout.close()


def test_own_temporary_file_is_not_stale(tmp_path):
    with TemporaryFile(tmp_path / "a.bin") as file:
        assert remove_stale(tmp_path) == []
        assert file.path.exists()


def test_foreign_files_are_left_alone(tmp_path):
    own = f".model-toolkit-{temporary._HOST}-1.part"
    names = [".model-toolkit-00000000-1-deadbeef.part", ".model-toolkit.part", "x.part", own]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert remove_stale(tmp_path) == []


RACER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from lib_toolkit.errors import TargetError
    from lib_toolkit.temporary import TemporaryFile
    who, folder, won = sys.argv[1], Path({folder!r}), 0
    for number in range(100):
        try:
            with TemporaryFile(folder / f"{{number}}.bin") as file:
                file.write_at(0, memoryview(who.encode() * 1000))
                file.commit()
            won += 1
        except TargetError:
            pass
    print(won)
    """
)


@pytest.mark.skipif(not hasattr(os, "link"), reason="without hard links the last step is not atomic")
def test_two_processes_never_overwrite_each_other(tmp_path):
    code = RACER.format(root=str(Path(__file__).parent.parent), folder=str(tmp_path))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen([sys.executable, "-c", code, who], **pipes) for who in "AB"]
    results = [racer.communicate() for racer in racers]
    assert [error for _, error in results] == [b"", b""]
    assert sum(int(out) for out, _ in results) == 100
    assert len(list(tmp_path.iterdir())) == 100
    assert all(path.read_bytes() in (b"A" * 1000, b"B" * 1000) for path in tmp_path.iterdir())


def test_free_name_counts_up(tmp_path):
    assert free_name(tmp_path, "a", ".ckpt").name == "a.ckpt"
    (tmp_path / "a.ckpt").touch()
    (tmp_path / "a(1).ckpt").touch()
    assert free_name(tmp_path, "a", ".ckpt").name == "a(2).ckpt"


@pytest.mark.parametrize(
    ("stem", "proposed"),
    [
        (".hidden-pruned", "hidden-pruned.ckpt"),
        ("a:b?-pruned", "a_b_-pruned.ckpt"),
        ("con", "_con.ckpt"),
        ("caf\udce9", "caf?.ckpt".replace("?", "_")),
        ("   ", "model.ckpt"),
        ("名" * 120, "名" * 81 + ".ckpt"),
    ],
)
def test_a_proposed_name_can_be_written(tmp_path, stem, proposed):
    path = free_name(tmp_path, stem, ".ckpt")
    assert path.name == proposed
    assert safe_output_name(path.name) == proposed
    path.touch()
    assert safe_output_name(free_name(tmp_path, stem, ".ckpt").name).endswith("(1).ckpt")
