"""The verb ``report`` as a user runs it: every form of it, and sentences that are true of the demo models."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.cli.main import main
from lib_toolkit.demo import make_demo
from lib_toolkit.reports.report_json import report_schema
from tests.making import of_arrays, read_header, safetensors_bytes
from tests.ui.driving import read_checkpoint

CHECKPOINTS = "Stable-diffusion"
NAMES = (
    f"{CHECKPOINTS}/sd-demo.safetensors",
    f"{CHECKPOINTS}/sd-demo-bloated.ckpt",
    f"{CHECKPOINTS}/sd-demo-broken-ids.safetensors",
    f"{CHECKPOINTS}/sd-demo-wrong-vae.safetensors",
    f"{CHECKPOINTS}/sd-demo-no-clip.safetensors",
    f"{CHECKPOINTS}/sd-demo-nai.ckpt",
    f"{CHECKPOINTS}/xl/sdxl-demo-vpred.safetensors",
    "VAE/demo.vae.safetensors",
    "Lora/sd1-demo-lora.safetensors",
)


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Names that the user of this computer has given must not show."""
    monkeypatch.setenv("MODEL_TOOLKIT_CONFIG", str(tmp_path / "settings"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder)
    return folder


@pytest.fixture
def small(tmp_path) -> Path:
    """A VAE of the demonstration size."""
    rng = np.random.default_rng(1)
    table = architecture("vae-demo").table()
    path = tmp_path / "small.vae.safetensors"
    path.write_bytes(
        safetensors_bytes(of_arrays({k: rng.standard_normal(shape).astype("<f2") for k, shape in table.items()}))
    )
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main(["report", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def told(capsys, path, *options) -> dict:
    status, out, err = run(capsys, path, "--json", "-", *options)
    assert (status, err) == (0, "")
    data = json.loads(out)
    # A validator takes its time over thousands of tensors; they are all alike.
    jsonschema.Draft202012Validator(report_schema()).validate({**data, "keys": data["keys"][:9]})
    return data


@pytest.mark.parametrize("name", NAMES)
def test_json_of_every_demo_model(demo, capsys, name):
    path = demo / name
    data = told(capsys, path)
    whole = path.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    assert (data["file"], data["file_bytes"], data["quick"]) == (path.name, len(whole), False)
    assert data["hashes"]["sha256"] == digest
    assert data["hashes"]["autov2"] == digest[:10]
    assert data["hashes"]["legacy"] == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    if path.suffix == ".safetensors":
        header, start = read_header(path)
        assert data["hashes"]["autov3"] == hashlib.sha256(whole[start:]).hexdigest()[:12]
        for entry in data["keys"]:
            kind = {"F32": "<f4", "F16": "<f2"}.get(entry["dtype"])
            if kind and entry["bytes"]:
                begin, stop = header[entry["key"]]["data_offsets"]
                values = np.frombuffer(whole[start + begin : start + stop], kind)
                assert entry["health"]["count"] == values.size
                assert entry["health"]["zero"] == np.count_nonzero(values == 0)
    assert len(data["fingerprints"]) == len(data["components"])


@pytest.mark.parametrize("name", NAMES)
def test_every_sentence_of_the_text_is_true(demo, capsys, name):
    """Each figure that the text gives is recomputed from what the header (or a plain reader of checkpoints) tells."""
    path = demo / name
    status, text, err = run(capsys, path)
    assert (status, err) == (0, "")
    tensors = _tensors_of(path)
    assert f", {path.stat().st_size:,} bytes, {len(tensors):,} tensors, " in text
    parts = {row[0]: row for row in (re.split(r"\s{2,}", line.strip()) for line in text.splitlines()) if len(row) > 3}
    prefixes = {"UNet": "model.diffusion_model.", "VAE": "first_stage_model.", "EMA copy": "model_ema."}
    for part, prefix in prefixes.items():
        sizes = [values.nbytes for key, values in tensors.items() if key.startswith(prefix)]
        if sizes:
            assert parts[part][1:3] == [f"{len(sizes):,}", f"{sum(sizes):,}"]
        else:
            assert part not in parts or name.startswith("VAE")
    floats = {key: values for key, values in tensors.items() if values.dtype.kind == "f"}
    count = sum(values.size for values in floats.values())
    assert f"{len(floats):,} floating-point tensors were checked, {count:,} values" in text
    assert "none NaN, none infinite, none beyond FP16." in text
    weights = {k: v for k, v in floats.items() if v.size and not k.endswith(("position_ids", "decay"))}
    largest, key = re.search(r"largest magnitude of a weight is (\S+), in (\S+)\.", text).groups()
    assert float(largest) == pytest.approx(max(np.abs(v).max() for v in weights.values()), rel=0.006)
    assert np.abs(weights[key]).max() == pytest.approx(float(largest), rel=0.006)
    _check_prune(path, text, capsys)


def _tensors_of(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        import safetensors.numpy

        return safetensors.numpy.load_file(path)
    return read_checkpoint(path)["state_dict"]


def _check_prune(path: Path, text: str, capsys) -> None:
    target = path.with_name(f"{path.stem}-pruned-for-the-test.safetensors")
    try:
        assert main(["prune", str(path), "-o", str(target)]) == 0
        size, before, after = target.stat().st_size, _tensors_of(path), _tensors_of(target)
    finally:
        target.unlink(missing_ok=True)
        capsys.readouterr()
    if "There is nothing to prune" in text:
        # only the history in the header may differ
        assert after.keys() == before.keys()
        assert all(after[key].tobytes() == before[key].tobytes() for key in before)
    else:
        saved = path.stat().st_size - size
        assert re.search(
            rf"A prune would write {size:,} bytes \([^)]*\), {saved:,} bytes fewer than the source\.", text
        )


def test_all_forms_at_once(small, tmp_path, capsys):
    forms = {"--json": tmp_path / "r.json", "--html": tmp_path / "r.html", "--markdown": tmp_path / "r.md"}
    status, out, err = run(capsys, small, *(part for pair in forms.items() for part in pair))
    assert (status, out) == (0, "")
    assert [str(path) in line for path, line in zip(forms.values(), err.splitlines(), strict=True)] == [True] * 3
    data = json.loads(forms["--json"].read_text("utf-8"))
    jsonschema.validate(data, report_schema())
    assert data["metric"]["text"] in forms["--html"].read_text("utf-8")
    assert data["file_fingerprint"] in forms["--markdown"].read_text("utf-8")
    assert sorted(tmp_path.iterdir()) == sorted([small, *forms.values()])


def test_markdown_on_stdout_is_that_of_the_file(small, tmp_path, capsys):
    _, out, _ = run(capsys, small, "--markdown", "-")
    run(capsys, small, "--markdown", tmp_path / "r.md")
    assert out == (tmp_path / "r.md").read_text("utf-8")
    assert out.startswith("# small.vae.safetensors\n")


def test_stdout_and_files_together(small, tmp_path, capsys):
    _, out, _ = run(capsys, small, "--json", "-", "--html", tmp_path / "r.html")
    assert json.loads(out)["file"] == "small.vae.safetensors"
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_quick_reads_no_values(small, capsys, monkeypatch):
    from lib_toolkit.tensors import Stored

    def refuse(*_):
        raise AssertionError("a value was read")

    full = told(capsys, small)
    monkeypatch.setattr(Stored, "read_into", refuse)
    quick = told(capsys, small, "--quick")
    assert quick["quick"]
    absent = ("metric", "hashes", "file_fingerprint")
    assert [quick[name] for name in absent] == [None, None, None]
    assert (quick["fingerprints"], quick["components"]) == ([], full["components"])
    _, text, _ = run(capsys, small, "--quick")
    assert "Only the header was read: values were not looked at." in text


def test_quick_report_of_a_full_size_model(demo, capsys):
    path = demo / CHECKPOINTS / "sd-v1-full-size-zeros.safetensors"
    data = told(capsys, path, "--quick")
    assert (data["id"], data["intact"], data["tensors"]) == ("sd1", True, 1131)
    shares = {share["role"]: share["bytes"] for share in data["pruned"]["shares"]}
    # 859.5 million values of the UNet, 83.7 million of the VAE, four bytes each
    assert (shares["unet"], shares["vae"]) == (859_520_964 * 4, 83_653_863 * 4)


def test_values_that_are_no_numbers_are_told(tmp_path, capsys):
    arrays = {key: np.zeros(shape, "<f4") for key, shape in architecture("vae-demo").table().items()}
    arrays["decoder.conv_in.bias"][:2] = [np.nan, np.inf]
    path = tmp_path / "bad.vae.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(arrays)))
    data = told(capsys, path)
    health = {entry["key"]: entry["health"] for entry in data["keys"]}["decoder.conv_in.bias"]
    assert (health["nan"], health["infinite"]) == (1, 1)
    assert any(
        finding["severity"] != "info" and "decoder.conv_in.bias" in finding["keys"] for finding in data["findings"]
    )
    _, text, _ = run(capsys, path)
    assert ": 1 NaN, 1 infinite, none beyond FP16." in text


def test_an_existing_file_is_kept_without_force(small, tmp_path, capsys):
    kept, other = tmp_path / "r.html", tmp_path / "r.json"
    kept.write_text("mine")
    status, out, err = run(capsys, small, "--html", kept, "--json", other)
    assert (status, out) == (2, "")
    assert re.fullmatch(r".*r\.html exists already; .*force.*\.\n", err)
    assert kept.read_text() == "mine"
    assert not other.exists()
    assert run(capsys, small, "--html", kept, "--force")[0] == 0
    assert kept.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_nothing_is_written_when_one_file_cannot_be(small, tmp_path, capsys, monkeypatch):
    from lib_toolkit import temporary

    real = temporary.TemporaryFile.write_at

    def failing(self, offset, data):
        if self.final.suffix == ".md":
            raise temporary.TargetError("The disk is full; nothing was kept.")
        real(self, offset, data)

    monkeypatch.setattr(temporary.TemporaryFile, "write_at", failing)
    before = sorted(tmp_path.iterdir())
    status, _, err = run(capsys, small, "--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md")
    assert (status, err) == (2, "The disk is full; nothing was kept.\n")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--html", "-"], "The page is not printed"),
        (["--json", "-", "--markdown", "-"], "Only one of --json and --markdown can be printed"),
        (["--json", "{}/r.txt", "--markdown", "{}/r.txt"], "Two forms of the report have the same file name"),
        (["--json", "{}/none/r.json"], "does not exist"),
        (["--json", "{}/"], "not the name of a file"),
        (["--json", ""], "not the name of a file"),
        (["--json", "{}/small.vae.safetensors", "--force"], "is the source itself"),
        (["--json"], "expected one argument"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(small, tmp_path, capsys, arguments, words):
    before = small.read_bytes()
    status, out, err = run(capsys, small, *(argument.replace("{}", str(tmp_path)) for argument in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert small.read_bytes() == before
    assert list(tmp_path.iterdir()) == [small]


def test_no_model_no_report(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not a model at all")
    status, out, err = run(capsys, path, "--html", tmp_path / "r.html")
    assert (status, out) == (2, "")
    assert "x.safetensors" in err
    assert list(tmp_path.iterdir()) == [path]
    assert run(capsys, tmp_path / "none.ckpt")[0] == 2


def test_names_of_files_cannot_write_to_the_terminal(tmp_path, capsys):
    arrays = {"a\x1b[2J": np.ones(3, "<f4")}
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(arrays), {"\x1b[31mred": "\u202e"}))
    for options in ([], ["--markdown", "-"], ["--quick"]):
        status, out, _ = run(capsys, path, *options)
        assert status == 0
        assert all(character.isprintable() or character == "\n" for character in out)
