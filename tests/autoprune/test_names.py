"""Names: conflicts of models and sidecars, one number for both, nothing replaced, names that other systems refuse."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from pathlib import Path

import pytest

from lib_toolkit.autoprune import filing, naming
from lib_toolkit.autoprune.naming import Group, free_group, usable
from lib_toolkit.autoprune.sidecars import Sidecar
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, library, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def test_a_taken_name_gets_a_number_and_nothing_is_replaced(lib):
    taken = save(lib.folder("lora") / "big.safetensors", samples.lora(seed=9))
    before = taken.read_bytes()
    for seed in (1, 2):
        save(lib.drop / "big.safetensors", samples.lora(seed=seed))
        (lib.drop / "big.preview.png").write_text(f"picture {seed}")
        assert lib.run().counts == {"written": 1}
        assert_halved(lib.folder("lora") / f"big({seed}).safetensors", samples.lora(seed=seed))
        assert (lib.folder("lora") / f"big({seed}).preview.png").read_text() == f"picture {seed}"
    assert taken.read_bytes() == before
    assert lib.files("Autoprune") == ["Autoprune/Done/big(1).safetensors", "Autoprune/Done/big.safetensors"]


def test_a_taken_name_of_a_sidecar_moves_the_model_on_too(lib):
    lib.folder("lora").mkdir()
    (lib.folder("lora") / "big.json").write_text("of another program")
    (lib.folder("lora") / "big(1).preview.png").write_text("older picture")
    save(lib.drop / "big.safetensors", samples.lora())
    (lib.drop / "big.json").write_text("mine")
    (lib.drop / "big.preview.png").write_text("my picture")
    assert lib.run().counts == {"written": 1}
    assert lib.files("Lora") == [
        "Lora/big(1).preview.png", "Lora/big(2).json", "Lora/big(2).preview.png", "Lora/big(2).safetensors",
        "Lora/big.json",
    ]  # fmt: skip
    assert (lib.folder("lora") / "big.json").read_text() == "of another program"
    assert (lib.folder("lora") / "big(1).preview.png").read_text() == "older picture"
    assert (lib.folder("lora") / "big(2).json").read_text() == "mine"


def test_a_sidecar_name_that_is_taken_while_the_model_is_written(lib, monkeypatch):
    save(lib.drop / "big.safetensors", samples.lora())
    (lib.drop / "big.json").write_text("mine")
    (lib.drop / "big.png").write_text("picture")
    original = filing.bring

    def meanwhile(path, final, copy):
        if final.name == "big.png":
            final.write_text("somebody else's")
        return original(path, final, copy)

    monkeypatch.setattr(filing, "bring", meanwhile)
    (step,) = lib.run().steps
    assert step.outcome == "written"
    assert lib.files("Lora") == ["Lora/big(1).json", "Lora/big(1).png", "Lora/big(1).safetensors", "Lora/big.png"]
    assert (lib.folder("lora") / "big.png").read_text() == "somebody else's"
    assert (lib.folder("lora") / "big(1).png").read_text() == "picture"
    assert step.target == str(lib.folder("lora") / "big(1).safetensors")
    assert [Path(path).name for path in step.sidecars] == ["big(1).json", "big(1).png"]


def test_a_model_name_that_is_taken_while_it_is_written(lib, monkeypatch):
    from lib_toolkit.temporary import TemporaryFile

    save(lib.drop / "big.safetensors", samples.lora())
    original = TemporaryFile.sync

    def meanwhile(self):
        if self.final.name == "big.safetensors":
            self.final.write_text("somebody else's")
        original(self)

    monkeypatch.setattr(TemporaryFile, "sync", meanwhile)
    assert lib.run().counts == {"written": 1}
    assert (lib.folder("lora") / "big.safetensors").read_text() == "somebody else's"
    assert_halved(lib.folder("lora") / "big(1).safetensors", samples.lora())
    assert lib.temporary() == []


def test_models_of_one_stem_share_their_sidecars(lib):
    save(lib.drop / "big.safetensors", samples.lora(seed=1))
    save(lib.drop / "big.ckpt", samples.lora(seed=2))
    (lib.drop / "big.png").write_text("picture")
    assert lib.run().counts == {"written": 2}
    assert lib.files("Lora") == ["Lora/big(1).png", "Lora/big(1).safetensors", "Lora/big.png", "Lora/big.safetensors"]
    assert lib.files("Autoprune") == ["Autoprune/Done/big.ckpt", "Autoprune/Done/big.safetensors"]


@pytest.mark.parametrize("form", ["link", "folder"])
def test_what_is_no_file_of_a_models_name_shares_no_sidecars(lib, form, tmp_path):
    save(lib.drop / "big.safetensors", samples.lora())
    (lib.drop / "big.png").write_text("picture")
    if form == "folder":
        for name in ("big", "big.ckpt"):
            (lib.drop / name).mkdir()
    elif os.name != "nt":
        (lib.drop / "big.ckpt").symlink_to(save(tmp_path / "elsewhere.safetensors", samples.lora(1)))
    lib.run()
    assert lib.files("Lora") == ["Lora/big.png", "Lora/big.safetensors"]
    assert not (lib.drop / "big.png").exists()


COMPOSED, TAKEN_APART = (unicodedata.normalize(form, "Mädchen") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("sources", ["done", "keep"])
@pytest.mark.parametrize(
    ("model", "stem"), [("Anna", "anna"), (COMPOSED, TAKEN_APART), (TAKEN_APART, COMPOSED), ("STRASSE", "straße")]
)
def test_sidecars_are_known_in_other_letters_and_get_the_models(lib, model, stem, sources):
    save(lib.drop / f"{model}.safetensors", samples.lora())
    names = [f"{stem}.png", f"{stem}.SafeTensors.json"]
    for name in names:
        (lib.drop / name).write_text(name)
    (step,) = lib.run(sources=sources).steps
    assert step.outcome == "written"
    assert (lib.folder("lora") / f"{model}.png").read_text() == names[0]
    assert (lib.folder("lora") / f"{model}.safetensors.json").read_text() == names[1]
    assert [(lib.drop / name).exists() for name in names] == [sources == "keep"] * 2


def test_sidecars_in_other_letters_follow_after_a_crash(lib, monkeypatch):
    from lib_toolkit.autoprune import processing

    class KilledError(BaseException):
        """The process ends here."""

    save(lib.drop / "Anna.safetensors", samples.lora())
    (lib.drop / "anna.png").write_text("picture")
    usual = processing.Worker._dispose
    with monkeypatch.context() as patch:
        patch.setattr(processing, "follow", lambda group, *args: (group, ()))

        def disposed(self, *given):
            usual(self, *given)
            raise KilledError

        patch.setattr(processing.Worker, "_dispose", disposed)
        with pytest.raises(KilledError):
            lib.run()
    (step,) = [step for step in lib.run().steps if step.file == "Anna.safetensors"]
    assert (step.outcome, step.recovered) == ("written", True)
    assert (lib.folder("lora") / "Anna.png").read_text() == "picture"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="they are one file there")
def test_one_of_two_sidecars_that_differ_in_case_alone_follows(lib):
    save(lib.drop / "anna.safetensors", samples.lora())
    (lib.drop / "Anna.png").write_text("other")
    (lib.drop / "anna.png").write_text("own")
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {"anna.safetensors": "written", "Anna.png": "left"}
    assert "nearly the same name" in steps["Anna.png"].reason
    assert (lib.folder("lora") / "anna.png").read_text() == "own"
    assert (lib.drop / "Anna.png").read_text() == "other"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="they are one file there")
def test_models_that_differ_in_case_alone_share_their_sidecars(lib):
    save(lib.drop / "Anna.safetensors", samples.lora(seed=1))
    save(lib.drop / "anna.ckpt", samples.lora(seed=2))
    (lib.drop / "anna.png").write_text("picture")
    assert lib.run().counts == {"written": 2}
    assert len([name for name in lib.files("Lora") if name.endswith(".png")]) == 2
    assert not (lib.drop / "anna.png").exists()


@pytest.mark.parametrize(("there", "new"), [("BIG.safetensors", "big"), (f"{TAKEN_APART}.safetensors", COMPOSED)])
def test_names_that_are_one_on_other_systems_are_one(lib, there, new):
    lib.folder("lora").mkdir()
    (lib.folder("lora") / there).write_text("x")
    save(lib.drop / f"{new}.safetensors", samples.lora())
    lib.run()
    assert (lib.folder("lora") / f"{new}(1).safetensors").is_file()


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("[anime] v1 (fix) {x}", "[anime] v1 (fix) {x}"),
        ("模型 v2", "模型 v2"),
        ("con", "_con"),
        ("nul.v1", "_nul.v1"),
        ("a:b?c", "a_b_c"),
        ("line\nbreak\u202egpj", "line_break_gpj"),
        ("trailing. ", "trailing"),
        ("...", "model"),
    ],
)
def test_names_become_usable_on_every_system(stem, wanted):
    assert usable(stem, ".safetensors") == wanted


def test_long_names_leave_room_for_number_and_sidecars():
    side = (Sidecar(Path("x"), ".civitai.info"), Sidecar(Path("x"), ".json", whole=True))
    for stem in ("x" * 240, "ü" * 120, "模" * 80):
        group = Group(Path(), usable(stem, ".safetensors", side), ".safetensors", side, 99999)
        assert max(len(name.encode()) for name in group.names) <= 255


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_odd_names_on_disk(lib):
    stems = ["[a] (b) {c}", "con", "a:b", "x\ny", "ü模\u200f", "l" * 243, os.fsdecode(b"bad-\xff")]
    for seed, stem in enumerate(stems):
        save(lib.drop / f"{stem}.safetensors", samples.lora(seed))
    lib.run()
    assert {path.name for path in lib.folder("lora").iterdir()} == {
        "[a] (b) {c}.safetensors", "_con.safetensors", "a_b.safetensors", "x_y.safetensors", "ü模_.safetensors",
        "l" * 236 + ".safetensors", "bad-_.safetensors",
    }  # fmt: skip
    assert not [path for path in lib.drop.iterdir() if path.suffix == ".safetensors"]


def test_numbers_are_looked_for_once_for_all_names(tmp_path):
    (tmp_path / "a(1).json").touch()
    (tmp_path / "A.SAFETENSORS").touch()
    group = free_group(Group(tmp_path, "a", ".safetensors", (Sidecar(tmp_path / "x.json", ".json"),)))
    assert group.names == ("a(2).safetensors", "a(2).json")


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_a_folder_that_does_not_show_its_names_has_them_all_the_same(lib, monkeypatch, dtype):
    """It may be written to and not be listed."""
    there = save(lib.folder("lora") / "a.safetensors", samples.lora(9))
    before = there.read_bytes()
    (lib.folder("lora") / "a(1).png").write_text("other")
    save(lib.drop / "a.safetensors", samples.lora(dtype=dtype))
    (lib.drop / "a.png").write_text("picture")
    usual = os.listdir

    def listdir(path="."):
        if Path(path) == lib.folder("lora"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return usual(path)

    monkeypatch.setattr(os, "listdir", listdir)
    (step,) = lib.run().steps
    assert Path(step.target).name == "a(2).safetensors"
    assert_halved(lib.folder("lora") / "a(2).safetensors", samples.lora())
    assert there.read_bytes() == before
    assert (lib.drop / "journal.jsonl").read_text().count('"line": "intent"') == 1


def _hide(monkeypatch, folder) -> None:
    """The folder's names are seen by nobody who asks; they are taken all the same, as on a share that hides what a
    user may not read."""
    listdir, lexists = os.listdir, os.path.lexists
    monkeypatch.setattr(os, "listdir", lambda path=".": [] if Path(path) == folder else listdir(path))
    monkeypatch.setattr(os.path, "lexists", lambda path: Path(path).parent != folder and lexists(path))


@pytest.mark.skipif(not hasattr(os, "link"), reason="without hard links a name is looked for before it is given")
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("ending", [".safetensors", ".png"])
def test_a_name_that_proved_to_be_taken_is_not_tried_again(lib, monkeypatch, dtype, ending):
    names = [f"a{number}{ending}" for number in ("", "(1)", "(2)", "(3)", "(4)")]
    lib.folder("lora").mkdir()
    for name in names:
        (lib.folder("lora") / name).write_text("not to be seen")
    save(lib.drop / "a.safetensors", samples.lora(dtype=dtype, modules=1))
    (lib.drop / "a.png").write_text("picture")
    _hide(monkeypatch, lib.folder("lora"))
    (step,) = lib.run().steps
    assert Path(step.target).name == "a(5).safetensors"
    assert (lib.folder("lora") / "a(5).png").read_text() == "picture"
    assert_halved(lib.folder("lora") / "a(5).safetensors", samples.lora(modules=1))
    assert {(lib.folder("lora") / name).read_text() for name in names} == {"not to be seen"}


@pytest.mark.skipif(not hasattr(os, "link"), reason="without hard links a name is looked for before it is given")
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("ending", [".safetensors", ".png"])
def test_names_are_tried_for_so_long_only(lib, monkeypatch, dtype, ending):
    monkeypatch.setattr(naming, "_TRIES", 3)
    lib.folder("lora").mkdir()
    for number in ("", "(1)", "(2)"):
        (lib.folder("lora") / f"a{number}{ending}").write_text("not to be seen")
    save(lib.drop / "a.safetensors", samples.lora(dtype=dtype, modules=1))
    (lib.drop / "a.png").write_text("picture")
    _hide(monkeypatch, lib.folder("lora"))
    (step,) = lib.run().steps
    told = step.reason if ending == ".safetensors" else step.findings[-1]
    assert "3 names that" in told
    assert "give the folder the rights to be listed" in told
    assert (step.outcome == "postponed") == (ending == ".safetensors") == (lib.drop / "a.safetensors").exists()
    assert (lib.drop / "a.png").read_text() == "picture", "it stays where it is found"
    assert lib.temporary() == []


def test_models_share_sidecars_whatever_the_letters_of_their_endings(lib):
    save(lib.drop / "tw.ckpt", samples.lora())
    save(lib.drop / "tw.SAFETENSORS", samples.lora(seed=1))
    (lib.drop / "tw.preview.png").write_bytes(b"picture")
    steps = lib.run().steps
    assert not any("could not follow" in finding for step in steps for finding in step.findings)
    for step in steps:
        (sidecar,) = step.sidecars
        assert Path(sidecar).read_bytes() == b"picture"
    assert not (lib.drop / "tw.preview.png").exists()


def test_a_sidecar_of_two_readings_goes_with_both_models(lib):
    save(lib.drop / "z.safetensors", samples.lora())
    save(lib.drop / "z.preview.safetensors", samples.lora(seed=1))
    (lib.drop / "z.preview.png").write_bytes(b"picture")
    steps = lib.run().steps
    assert not any("could not follow" in finding for step in steps for finding in step.findings)
    assert all(Path(sidecar).is_file() for step in steps for sidecar in step.sidecars)
    assert not (lib.drop / "z.preview.png").exists()
