"""What a pickle could run in the programs that open the target folders never gets there."""

from __future__ import annotations

import zipfile

import pytest

from lib_toolkit.formats import open_model
from tests.autoprune import samples
from tests.autoprune.samples import library
from tests.formats.pickle_cases import archive, call, integer, legacy, mapping, name, ordered, pickled, tensor, text
from tests.making import read_header

PAYLOADS = {
    "that no list knows": ("test.support.script_helper", "assert_python_ok"),
    "of a familiar module": ("wandb.sdk.lib", "run_it"),
    "like a callback": ("pytorch_lightning.callbacks", "ModelCheckpoint"),
}


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def embedding(before=b""):
    """A textual inversion as A1111 saves it."""
    tokens, values = mapping(("*", integer(265))), ordered(("*", tensor(numel=768, shape=(1, 768), stride=(768, 1))))
    whole = mapping(("string_to_token", tokens), ("string_to_param", values), ("name", text("e")))
    return archive(pickled(before + whole), {"0": bytes(4 * 768)})


def vae(before=b"", **others):
    """A VAE at half precision, all of whose tensors lie in storages of their own."""
    arrays = {key: array.astype("<f2") for key, array in samples.part("vae").items()}
    pairs, storages = [], {}
    for number, (key, array) in enumerate(arrays.items()):
        strides = [stride // 2 for stride in array.strides]
        pairs.append((key, tensor(str(number), array.size, array.shape, strides, kind="HalfStorage")))
        storages[str(number)] = array.tobytes()
    return archive(pickled(before + ordered(*pairs)), storages, **others)


def thrown_away(payload):
    """A call whose result is popped: nothing of it can be seen in what is made of the pickle."""
    return call(name(*payload), text("x")) + b"0"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_stays_byte_for_byte_names_nothing_but_tensors(lib, payload):
    full = ".".join(PAYLOADS[payload])
    (lib.drop / "plain.pt").write_bytes(embedding())
    (lib.drop / "evil.pt").write_bytes(embedding(thrown_away(PAYLOADS[payload])))
    steps = {step.file: step for step in lib.run().steps}
    assert (steps["plain.pt"].outcome, steps["plain.pt"].kind) == ("moved", "embedding")
    assert steps["evil.pt"].outcome == "failed" and full in steps["evil.pt"].reason
    assert lib.files() == [
        "Autoprune/Failed/evil.pt", "Autoprune/Failed/evil.pt.why.txt", "embeddings/plain.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_needs_nothing_else_is_written_anew(lib, payload):
    full = ".".join(PAYLOADS[payload])
    (lib.drop / "evil.pt").write_bytes(vae(thrown_away(PAYLOADS[payload])))
    (step,) = lib.run().steps
    assert (step.outcome, step.kind) == ("written", "vae")
    with zipfile.ZipFile(lib.folder("vae") / "evil.pt") as result:
        (pickle,) = (result.read(entry) for entry in result.namelist() if entry.endswith("data.pkl"))
    assert PAYLOADS[payload][1].encode() not in pickle
    with open_model(lib.drop / "Done" / "evil.pt") as before, open_model(lib.folder("vae") / "evil.pt") as after:
        assert before.foreign == (full,) and after.foreign == ()
        assert list(before.tensors) == list(after.tensors)


def test_what_is_thrown_away_is_told(lib):
    (lib.drop / "evil.pt").write_bytes(vae(thrown_away(PAYLOADS["that no list knows"])))
    with open_model(lib.drop / "evil.pt") as model:
        (warning,) = model.warnings
    assert "no part of it uses" in warning and "assert_python_ok" in warning


def test_names_in_every_pickle_of_the_old_format_count(tmp_path):
    system = pickled(thrown_away(PAYLOADS["that no list knows"]) + mapping(("little_endian", b"\x88")))
    (tmp_path / "old.pt").write_bytes(legacy(pickled(ordered(("w", tensor()))), system=system))
    with open_model(tmp_path / "old.pt") as model:
        assert model.foreign == ("test.support.script_helper.assert_python_ok",)


def test_an_archive_that_older_webuis_refuse_is_written_in_their_layout(lib):
    (lib.drop / "old.pt").write_bytes(vae())
    assert [step.outcome for step in lib.run().steps] == ["moved"]
    (lib.folder("vae") / "old.pt").unlink()
    (lib.drop / "new.pt").write_bytes(vae(**{".format_version": b"1", ".storage_alignment": b"64"}))
    assert [step.outcome for step in lib.run().steps] == ["written"]
    with zipfile.ZipFile(lib.folder("vae") / "new.pt") as result:
        assert not any(entry.endswith((".format_version", ".storage_alignment")) for entry in result.namelist())


def test_a_vae_as_safetensors_has_no_pickle_left(lib):
    (lib.drop / "evil.pt").write_bytes(vae(thrown_away(PAYLOADS["like a callback"])))
    lib.run(vae_format="safetensors")
    assert read_header(lib.folder("vae") / "evil.safetensors")[0]
