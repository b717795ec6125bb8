"""Folders that are none: a file, a link to nothing or in a circle; and folders named like Autoprune's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lib_toolkit.autoprune import last_run, run_once, waiting
from lib_toolkit.cli.main import main
from lib_toolkit.errors import UsageError
from tests.autoprune import samples
from tests.autoprune.samples import library, outcomes, save

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def _put(how: str, path: Path) -> None:
    """What stands where a folder should be."""
    if how == "file":
        path.write_text("x")
    else:
        path.symlink_to(path if how == "circle" else path.with_name("nowhere"))


_LINK = "is a link that leads to no folder"
WAYS = {"file": "is a file", "circle": _LINK, "dangling": _LINK}


@pytest.mark.parametrize(("how", "words"), WAYS.items())
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("sub", ["", "sub/"])
def test_what_stands_in_the_place_of_a_target_folder_is_named(lib, how, words, dtype, sub):
    save(lib.drop / f"{sub}a.safetensors", samples.lora(dtype=dtype))
    save(lib.drop / "e.safetensors", samples.embedding())
    _put(how, lib.folder("lora"))
    steps = {step.file: step for step in lib.run().steps}
    assert steps["e.safetensors"].outcome == "written"
    step = steps[f"{sub}a.safetensors"]
    assert (step.outcome, f"{lib.folder('lora') if sub else 'it'} {words}" in step.reason) == ("postponed", True), (
        step.reason
    )
    lib.folder("lora").unlink()
    assert set(outcomes(lib.run()).values()) < {"written", "moved"}


@pytest.mark.parametrize("how", ["file", "circle"])
def test_what_stands_in_the_place_of_the_drop_folder_is_named(lib, capsys, how):
    lib.drop.rmdir()
    _put(how, lib.drop)
    for asks in (lib.run, lambda: run_once(lib.policy(), dry=True), lambda: waiting(lib.policy())):
        with pytest.raises(UsageError, match=WAYS[how]):
            asks()
    assert last_run(lib.policy()) is None
    for options in ([], ["--dry-run"]):
        assert main(["autoprune", "--models-dir", str(lib.root), *options]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), f"{lib.drop} cannot be used: it {WAYS[how]}" in err) == ("", 1, True)


def test_a_drop_folder_that_is_a_link_to_a_folder_that_was_not_made_yet_is_made(lib, tmp_path):
    lib.drop.rmdir()
    lib.drop.symlink_to(tmp_path / "elsewhere")
    assert lib.run().steps == ()
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.skipif(sys.platform == "darwin", reason="they are one folder there")
@pytest.mark.parametrize("name", ["done", "FAILED"])
def test_a_folder_named_like_an_own_one_in_other_letters_is_looked_into(lib, name):
    save(lib.drop / name / "b.safetensors", samples.lora())
    assert [step.file for step in waiting(lib.policy())] == [f"{name}/b.safetensors"]
    assert outcomes(lib.run()) == {f"{name}/b.safetensors": "written"}
    assert lib.files() == [f"Autoprune/Done/{name}/b.safetensors", f"Lora/{name}/b.safetensors"]
    assert lib.run().steps == ()


@pytest.mark.parametrize(("own", "name"), [("Done", "done"), ("Failed", "failed")])
def test_one_that_is_the_own_folder_under_another_name_is_not(lib, own, name):
    """As on disks that do not tell case apart."""
    save(lib.drop / name / "b.safetensors", samples.lora())
    if not (lib.drop / own).exists():
        (lib.drop / own).symlink_to(name)
    assert waiting(lib.policy()) == lib.run().steps == ()


@pytest.mark.skipif(sys.platform == "darwin", reason="they are one folder there")
def test_done_that_leads_below_a_folder_of_its_name_in_other_letters_takes_nothing(lib):
    """What went there would be found again, one folder deeper each time."""
    (lib.drop / "done" / "old").mkdir(parents=True)
    (lib.drop / "Done").symlink_to("done/old")
    save(lib.drop / "a.safetensors", samples.lora())
    for _ in range(2):
        lib.run()
        assert lib.files() == ["Autoprune/a.safetensors", "Lora/a.safetensors"]
