"""What the system refuses for the moment is not the file's fault: it stays where it lies, and its turn comes again."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from lib_toolkit.autoprune import moving, run_once
from lib_toolkit.cli.main import main
from lib_toolkit.errors import UsageError
from tests.autoprune import samples
from tests.autoprune.samples import HAS_RIGHTS, library, outcomes, save

TROUBLES = [
    ("open", errno.EMFILE, "close programs"),
    ("open", errno.ENOMEM, "close programs"),
    ("open", errno.EHOSTDOWN, "share"),
    ("open", errno.EACCES, "check its permissions"),
    ("read", errno.ESTALE, "share"),
    ("read", errno.EIO, "check the disk"),
]


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def _refuse(monkeypatch, path: Path, where: str, number: int) -> None:
    """The system opens the file, or reads it, no more."""
    real_open, real_read = os.open, os.preadv

    def refused() -> OSError:
        return OSError(number, os.strerror(number))  # Python makes the fitting subclass of it

    def guarded_open(name, flags, *args, **kwargs):
        if name == path and not flags & os.O_NOFOLLOW:
            raise refused()
        return real_open(name, flags, *args, **kwargs)

    def guarded_read(fd, *args):
        if Path(f"/proc/self/fd/{fd}").readlink() == path:
            raise refused()
        return real_read(fd, *args)

    if where == "open":
        monkeypatch.setattr(os, "open", guarded_open)
    else:
        monkeypatch.setattr(os, "preadv", guarded_read)


@pytest.mark.skipif(sys.platform != "linux", reason="replaces calls of Linux")
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize(("where", "number", "advice"), TROUBLES)
def test_a_sound_model_stays_until_it_can_be_read(lib, monkeypatch, where, number, advice, dtype):
    source = save(lib.drop / "a.safetensors", samples.lora(dtype=dtype))
    (lib.drop / "a.png").write_text("picture")
    with monkeypatch.context() as patch:
        _refuse(patch, source, where, number)
        (dry,) = run_once(lib.policy(), pause=0.01, dry=True).steps
        (step,) = lib.run().steps
    assert (step.outcome, dry.outcome, dry.foreseen) == ("postponed", "planned", "postponed")
    for told in (step, dry):
        assert "a.safetensors" in told.reason and advice in told.reason, told.reason
        assert str(lib.root) not in told.reason
    assert lib.files() == ["Autoprune/a.png", "Autoprune/a.safetensors"]
    assert set(outcomes(lib.run()).values()) < {"written", "moved"}


@pytest.mark.skipif(sys.platform != "linux", reason="replaces calls of Linux")
def test_a_broken_file_that_cannot_be_brought_to_failed_stops_no_other(lib, monkeypatch):
    """Failed lies on another disk, and the file can be read once and no more."""
    page = lib.drop / "a.ckpt"
    page.write_text("<html>")
    save(lib.drop / "b.safetensors", samples.lora())

    usual = moving.rename_new

    def rename_new(source, final):
        if source == page:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        usual(source, final)

    real_read, count = os.preadv, 0

    def guarded_read(fd, *args):
        nonlocal count
        if Path(f"/proc/self/fd/{fd}").readlink() == page:
            count += 1
            if count > 1:  # once to see what it is
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_read(fd, *args)

    monkeypatch.setattr(moving, "rename_new", rename_new)
    monkeypatch.setattr(os, "preadv", guarded_read)
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {"a.ckpt": "postponed", "b.safetensors": "written"}
    assert "web page" in steps["a.ckpt"].reason and "could not be moved to Failed" in steps["a.ckpt"].reason
    assert page.is_file() and not list((lib.drop / "Failed").glob("*"))


@pytest.mark.skipif(HAS_RIGHTS, reason="the superuser may read everything")
def test_a_file_that_this_user_may_not_read_stays(lib):
    source = save(lib.drop / "a.safetensors", samples.lora())
    source.chmod(0)
    (step,) = lib.run().steps
    assert (step.outcome, "check its permissions" in step.reason) == ("postponed", True)
    source.chmod(0o600)
    assert lib.run().counts == {"written": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="replaces calls of Linux")
@pytest.mark.parametrize("verb", ["inspect", "prune", "report"])
@pytest.mark.parametrize(("where", "number", "advice"), TROUBLES)
def test_other_verbs_say_it_in_one_sentence(tmp_path, monkeypatch, capsys, where, number, advice, verb):
    source = save(tmp_path / "a.safetensors", samples.lora())
    _refuse(monkeypatch, source, where, number)
    assert main([verb, str(source)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), str(source) in err, advice in err) == ("", 1, True, True), err


@pytest.mark.parametrize("workers", [-1, 33, 100_000])
def test_no_more_workers_than_the_settings_allow(lib, capsys, workers):
    with pytest.raises(UsageError, match="0 to 32"):
        lib.policy(workers=workers)
    assert main(["autoprune", "--models-dir", str(lib.root), "--workers", str(workers)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), f"{workers} cannot be" in err) == ("", 1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this process")
def test_most_workers_open_fewer_files_than_the_smallest_usual_limit(lib, monkeypatch):
    """macOS gives a program 256 files."""
    import resource

    for number in range(80):
        save(lib.drop / f"{number}.safetensors", samples.lora(number, modules=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = sum(1 for _ in Path("/proc/self/fd").iterdir())  # of tests before
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256 - 16 + others, hard), hard))
    try:
        assert lib.run(workers=32).counts == {"written": 80}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
