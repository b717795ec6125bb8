"""The commands as a user runs them: results checked against independent readers and casts."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.cli.main import main
from tests.making import (
    of_arrays,
    read_header,
    safetensors_bytes,
    stamp_bytes,
    stamp_positions,
    stamp_value,
    stamped_safetensors,
)

ROOT = Path(__file__).parent.parent.parent
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def run_json(capsys, *arguments) -> dict:
    status, out, err = run(capsys, *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def demo_arrays(name="sd-v1-demo", **options) -> dict[str, np.ndarray]:
    """A small checkpoint at FP32 with values of its own."""
    arrays = {}
    for key, shape in {**architecture(name).table(**options), **architecture(name).schedule()}.items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        arrays[key] = (
            np.arange(math.prod(shape), dtype="<i8").reshape(shape)
            if key.endswith("position_ids")
            else rng.standard_normal(shape).astype("<f4")
        )
    return arrays


def save(path: Path, arrays, metadata=None, more=None) -> Path:
    path.write_bytes(safetensors_bytes({**of_arrays(arrays), **(more or {})}, metadata))
    return path


BUFFERS = set(architecture("sd1").schedule())


def expected(arrays, precision="<f2"):
    return {
        key: array.clip(-65504, 65504).astype(precision) if array.dtype == np.float32 and key not in BUFFERS else array
        for key, array in arrays.items()
    }


def assert_same(path: Path, arrays) -> None:
    found = safetensors.numpy.load_file(path)
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].tobytes() == array.tobytes(), key


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", str(folder)]) == 0
    return folder


def test_demo_models_are_what_they_say(demo_folder, capsys):
    def inspect(name):
        return run_json(capsys, "inspect", demo_folder / name)

    clean = inspect("Stable-diffusion/sd-demo.safetensors")
    assert (clean["architecture"], clean["id"], clean["intact"]) == ("SD-v1-Demo", "sd-v1-demo", True)
    assert clean["leftovers"] == {"protected": [], "removable": [], "unknown": []}
    bloated = inspect("Stable-diffusion/sd-demo-bloated.ckpt")
    assert bloated["intact"]
    assert sum(left["bytes"] for left in bloated["leftovers"]["removable"]) > 0.2 * bloated["bytes"]
    broken_ids = inspect("Stable-diffusion/sd-demo-broken-ids.safetensors")
    assert any("loses position 76" in text for text in broken_ids["warnings"])
    no_clip = inspect("Stable-diffusion/sd-demo-no-clip.safetensors")
    assert (no_clip["intact"], len(no_clip["missing_classes"])) == (False, 1)
    assert no_clip["architecture"].endswith("-BROKEN")
    nai = inspect("Stable-diffusion/sd-demo-nai.ckpt")
    assert "nai" in {component["layout"] for component in nai["components"]}
    xl = inspect("Stable-diffusion/xl/sdxl-demo-vpred.safetensors")
    assert {left["key"] for left in xl["leftovers"]["protected"]} == {"v_pred", "ztsnr"}
    lora = inspect("Lora/sd1-demo-lora.safetensors")
    assert (lora["kind"], lora["base"]) == ("lora", "sd1")
    assert inspect("VAE/demo.vae.safetensors")["kind"] == "vae"
    full = inspect("Stable-diffusion/sd-v1-full-size-zeros.safetensors")
    assert (full["id"], full["intact"], full["warnings"]) == ("sd1", True, [])
    size = (demo_folder / "Stable-diffusion/sd-v1-full-size-zeros.safetensors").stat()
    assert size.st_size > 4.2e9
    assert size.st_blocks * 512 < 1e6


def test_demo_is_made_once_and_left_alone(demo_folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo_folder.rglob("*") if path.is_file()}
    assert run(capsys, "demo", demo_folder)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in demo_folder.rglob("*") if path.is_file()} == before


def test_demo_tells_what_it_made_what_to_see_in_it_and_what_it_left_alone(demo_folder, tmp_path, capsys):
    _, again, _ = run(capsys, "demo", demo_folder)
    assert "Made" not in again
    assert f"In {demo_folder} 11 names were taken already; what is there stays as it is:" in again
    fresh = tmp_path / "fresh"
    mine = fresh / "VAE" / "demo.vae.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"hello")
    _, out, _ = run(capsys, "demo", fresh)
    made, _, kept = out.partition("1 name was taken already; what is there stays as it is:\n")
    assert made.startswith(f"Made 10 models in {fresh}, with this to see:\n")
    assert "  VAE" not in made
    assert kept.splitlines()[0] == f"  {Path('VAE/demo.vae.safetensors')}"
    assert mine.read_bytes() == b"hello"
    lines = made.splitlines()
    wrong = lines.index(f"  {Path('Stable-diffusion/sd-demo-wrong-vae.safetensors')}")
    assert "a VAE spoilt by merging" in lines[wrong + 1]


def test_pruned_demo_checkpoint_equals_an_independent_cast(demo_folder, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    source = demo_folder / "Stable-diffusion/sd-demo-bloated.ckpt"
    before = source.read_bytes()
    result = run_json(capsys, "prune", source, "-o", tmp_path / "small.safetensors", "--hash")
    checkpoint = torch.load(source, weights_only=True)
    state = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("model_ema")}
    assert len(state) < len(checkpoint["state_dict"])
    found = safetensors.numpy.load_file(tmp_path / "small.safetensors")
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        wanted = tensor.half() if tensor.dtype is torch.float32 and key not in BUFFERS else tensor
        assert found[key].tobytes() == wanted.numpy().tobytes(), key
        assert found[key].shape == tuple(wanted.shape)
    assert result["bytes"] == result["predicted_bytes"] == (tmp_path / "small.safetensors").stat().st_size
    assert {d["key"] for d in result["dropped"]} == {k for k in checkpoint["state_dict"] if k.startswith("model_ema")}
    metadata, _ = read_header(tmp_path / "small.safetensors")
    assert metadata["__metadata__"]["epoch"] == "12"
    assert metadata["__metadata__"]["global_step"] == "84000"
    assert source.read_bytes() == before


@pytest.mark.parametrize("options", [[], ["--hash"], ["--format", "ckpt"], ["--keep-ema", "--precision", "bf16"],
                                     ["--precision", "keep"], ["--fix-clip", "--precision", "fp32"]])  # fmt: skip
@pytest.mark.parametrize("verb", ["prune", "convert"])
@pytest.mark.parametrize(
    "name", ["sd-demo-bloated.ckpt", "sd-demo-broken-ids.safetensors", "sd-demo-no-clip.safetensors"]
)
def test_prediction_is_exact(demo_folder, tmp_path, capsys, verb, name, options):
    source = demo_folder / "Stable-diffusion" / name
    target = tmp_path / ("out.ckpt" if "ckpt" in options else "out.safetensors")
    plan = run_json(capsys, verb, source, "-o", target, "--dry-run", *options)
    assert list(tmp_path.iterdir()) == []
    assert plan["bytes"] is None
    done = run_json(capsys, verb, source, "-o", target, *options)
    assert plan["predicted_bytes"] == done["predicted_bytes"] == done["bytes"] == target.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_full_size_prune_keeps_every_stamp(tmp_path, capsys):
    """Real names at real shapes: 7.5 GB of FP32 + EMA on a few kilobytes of disk, 2.1 GB written."""
    table = {
        k: ("F32", s) for k, s in {**architecture("sd1").table(ema=True), **architecture("sd1").schedule()}.items()
    }
    table[POSITIONS] = ("I64", (1, 77))
    table["model_ema.decay"] = ("F32", ())
    source, target = tmp_path / "big.safetensors", tmp_path / "small.safetensors"
    stamped_safetensors(source, table, {"author": "somebody"})
    assert source.stat().st_size > 7.4e9
    seen = run_json(capsys, "inspect", source)
    assert (seen["id"], seen["intact"], seen["tensors"]) == ("sd1", True, len(table))
    run_json(capsys, "prune", source, "-o", target)
    header, start = read_header(target)
    assert header.pop("__metadata__")["author"] == "somebody"
    assert header.keys() == {key for key in table if not key.startswith("model_ema.")}
    with target.open("rb") as file:
        for key, entry in header.items():
            dtype, shape = table[key]
            wanted = dtype if key in BUFFERS or dtype == "I64" else "F16"
            assert (entry["dtype"], tuple(entry["shape"])) == (wanted, shape)
            size = {"F16": 2, "F32": 4, "I64": 8}[wanted]
            for index in stamp_positions(math.prod(shape)):
                file.seek(start + entry["data_offsets"][0] + index * size)
                data = file.read(size)
                stamp = (
                    stamp_bytes(key, index, wanted)
                    if wanted != "F16"
                    else np.float16(stamp_value(key, index)).tobytes()
                )
                assert data == stamp, (key, index)
    target.unlink()


def test_everything_that_gives_meaning_stays(tmp_path, capsys):
    """Markers of v-prediction survive a prune, at their own type."""
    arrays = demo_arrays("sdxl-demo") | {"v_pred": np.empty(0, "<f4"), "ztsnr": np.empty(0, "<f4"),
                                         "edm_vpred.sigma_max": np.float32(120).reshape(())}  # fmt: skip
    source = save(tmp_path / "a.safetensors", arrays)
    run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    kept = {"v_pred", "ztsnr", "edm_vpred.sigma_max"}
    assert_same(tmp_path / "b.safetensors", {k: a if k in kept else expected({k: a})[k] for k, a in arrays.items()})


def test_a_quantised_model_is_never_cast(tmp_path, capsys):
    arrays = demo_arrays()
    layer = "model.diffusion_model.input_blocks.1.1.proj_in."
    scale = of_arrays({layer + "scale_weight": np.float32(0.5).reshape(()), "scaled_fp8": np.empty(0, "<f4")})
    weight = {layer + "weight": ("F8_E4M3", arrays[layer + "weight"].shape, bytes(arrays.pop(layer + "weight").size))}
    more = {**weight, "model.diffusion_model.scaled_fp8": ("F8_E4M3", (0,), b""), **scale}
    source = save(tmp_path / "a.safetensors", arrays, more=more)
    result = run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    header, _ = read_header(tmp_path / "b.safetensors")
    assert {k: v["dtype"] for k, v in header.items() if k != "__metadata__"} == {
        k: v["dtype"] for k, v in read_header(source)[0].items() if k != "__metadata__"
    }
    assert result["dropped"] == []
    assert any("quantised" in warning for warning in result["warnings"])


def test_nai_names_are_repaired_by_prune_and_kept_by_convert(tmp_path, capsys):
    arrays = demo_arrays(nai=True)
    source = save(tmp_path / "nai.safetensors", arrays)
    result = run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors", "--precision", "keep")
    old, new = "cond_stage_model.transformer.", "cond_stage_model.transformer.text_model."
    wanted = {k.replace(old, new) if k.startswith(old) else k: a for k, a in arrays.items()}
    assert_same(tmp_path / "b.safetensors", wanted)
    assert {c["key"] for c in result["changed"]} == {k for k in wanted if k.startswith(new)}
    run_json(capsys, "convert", source, "-o", tmp_path / "c.safetensors", "--precision", "keep")
    assert_same(tmp_path / "c.safetensors", arrays)


def broken_positions() -> np.ndarray:
    ids = np.arange(77, dtype="<f4")[None].copy()
    ids[0, 76] = 75.9975
    ids[0, 41] = 40.99
    return ids


def test_broken_position_ids_are_told_kept_and_repaired(tmp_path, capsys):
    arrays = demo_arrays() | {POSITIONS: broken_positions()}
    source = save(tmp_path / "a.safetensors", arrays)
    warnings = run_json(capsys, "inspect", source)["warnings"]
    assert any("41, 76" in warning and "75.9975" in warning for warning in warnings)
    for precision in ("auto", "fp16", "bf16"):
        target = tmp_path / f"{precision}.safetensors"
        run_json(capsys, "prune", source, "-o", target, "--precision", precision)
        found, start = read_header(target)
        assert found[POSITIONS]["dtype"] == "F32"
        begin, end = found[POSITIONS]["data_offsets"]
        assert target.read_bytes()[start + begin : start + end] == broken_positions().tobytes()
    run_json(capsys, "prune", source, "-o", tmp_path / "fixed.safetensors", "--fix-clip")
    ids = safetensors.numpy.load_file(tmp_path / "fixed.safetensors")[POSITIONS]
    assert ids.dtype == np.int64
    assert ids.tolist() == [list(range(77))]


@pytest.mark.parametrize(
    ("share", "options", "kept"), [(0.05, [], False), (0.3, [], True), (0.3, ["--drop-unknown"], False)]
)
def test_unknown_is_junk_only_where_it_is_little(tmp_path, capsys, share, options, kept):
    arrays = demo_arrays()
    size = sum(a.nbytes for a in arrays.values())
    arrays["mystery.weight"] = np.ones(int(size * share / (1 - share) / 4), "<f4")
    source = save(tmp_path / "a.safetensors", arrays)
    result = run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors", *options)
    assert ("mystery.weight" in read_header(tmp_path / "b.safetensors")[0]) is kept
    assert ("mystery.weight" in {d["key"] for d in result["dropped"]}) is not kept
    assert any("unknown" in w for w in result["warnings"]) is kept


def test_a_broken_model_keeps_its_parts(tmp_path, capsys):
    arrays = {k: a for k, a in demo_arrays().items() if not k.startswith("cond_stage_model")}
    arrays["mystery.weight"] = np.ones(3, "<f4")
    source = save(tmp_path / "a.safetensors", arrays)
    run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert_same(tmp_path / "b.safetensors", expected(arrays))


def test_an_ema_without_its_unet_is_not_junk(tmp_path, capsys):
    arrays = {k: a for k, a in demo_arrays(ema=True).items() if not k.startswith("model.diffusion_model")}
    source = save(tmp_path / "a.safetensors", arrays)
    run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert_same(tmp_path / "b.safetensors", expected(arrays))


def test_the_only_whole_unet_is_not_junk(tmp_path, capsys):
    arrays = demo_arrays(ema=True)
    del arrays["model.diffusion_model.out.2.bias"]
    source = save(tmp_path / "a.safetensors", arrays)
    run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert_same(tmp_path / "b.safetensors", expected(arrays))


def test_a_prune_that_leaves_nothing_is_refused(tmp_path, capsys):
    source = save(tmp_path / "a.safetensors", {"state.0.exp_avg": np.ones(5, "<f4")})
    status, out, err = run(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "a.safetensors" in err
    assert "convert keeps it all" in err
    assert not (tmp_path / "b.safetensors").exists()
    run_json(capsys, "convert", source, "-o", tmp_path / "b.safetensors", "--precision", "keep")


def test_what_is_left_out_of_a_pickle_has_its_own_reason_and_one_warning(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    source = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3), "meta": torch.empty(3, device="meta"), "layers": [1, 2], "when": Path("x")}, source)
    result = run_json(capsys, "convert", source, "-o", tmp_path / "b.safetensors")
    reasons = {left["key"]: left["reason"] for left in result["dropped"]}
    assert reasons["meta"] == "a tensor of a kind that cannot be read"
    assert reasons["layers"].startswith("a value inside of others")
    assert "only programs" in reasons["when"]
    assert len(result["warnings"]) == len(set(result["warnings"])) == 1


def test_convert_copies_anything_bit_for_bit(tmp_path, capsys):
    rng = np.random.default_rng(5)
    bits = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
    bits |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8}
    tensors = {
        f"layer.{name}": (name, (2, 8), rng.integers(0, 255, width * 2, dtype=np.uint8).tobytes())
        for name, width in bits.items()
    }
    tensors |= {"empty": ("F32", (0, 4), b""), "scalar": ("I64", (), bytes(8)), "flag": ("BOOL", (2,), b"\1\0")}
    source = tmp_path / "odd.safetensors"
    source.write_bytes(safetensors_bytes(tensors, {"a": "1", "format": "np"}))
    assert run_json(capsys, "inspect", source)["architecture"] is None
    run_json(capsys, "convert", source, "-o", tmp_path / "copy.safetensors", "--precision", "keep")
    header, start = read_header(tmp_path / "copy.safetensors")
    raw = (tmp_path / "copy.safetensors").read_bytes()
    assert header.pop("__metadata__")["a"] == "1"
    assert {
        k: (v["dtype"], tuple(v["shape"]), raw[start + v["data_offsets"][0] : start + v["data_offsets"][1]])
        for k, v in header.items()
    } == tensors
    status, _, err = run(capsys, "convert", source, "-o", tmp_path / "copy.ckpt", "--precision", "keep")
    assert status == 2
    assert "safetensors" in err
    assert not (tmp_path / "copy.ckpt").exists()


def test_a_ckpt_goes_round_with_its_values(demo_folder, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    source = demo_folder / "Stable-diffusion/sd-demo-bloated.ckpt"
    run_json(capsys, "convert", source, "-o", tmp_path / "again.ckpt", "--precision", "keep")
    before, after = (torch.load(p, weights_only=True) for p in (source, tmp_path / "again.ckpt"))
    assert (after["epoch"], after["global_step"]) == (12, 84_000)
    assert list(before["state_dict"]) == list(after["state_dict"])
    for key, tensor in before["state_dict"].items():
        assert tensor.dtype == after["state_dict"][key].dtype
        assert torch.equal(tensor, after["state_dict"][key])


def test_too_large_values_keep_their_type_or_are_refused(tmp_path, capsys):
    arrays = demo_arrays()
    key = "model.diffusion_model.out.2.weight"
    arrays[key][0, 0, 0, 0] = 1e6
    source = save(tmp_path / "a.safetensors", arrays)
    plan = run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors", "--dry-run")
    result = run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert plan["predicted_bytes"] == result["bytes"] == (tmp_path / "b.safetensors").stat().st_size
    assert_same(tmp_path / "b.safetensors", expected(arrays) | {key: arrays[key]})
    assert result["narrowing"][key]["overflowed"] == 1
    status, _, err = run(capsys, "prune", source, "-o", tmp_path / "c.safetensors", "--strict")
    assert (status, (tmp_path / "c.safetensors").exists()) == (2, False)
    assert key in err


def test_default_names_are_new_and_beside_the_source(tmp_path, capsys):
    source = save(tmp_path / "my.model.v1.safetensors", demo_arrays())
    first = run_json(capsys, "prune", source)["target"]
    second = run_json(capsys, "prune", source)["target"]
    third = run_json(capsys, "convert", source, "--precision", "bf16", "--format", "ckpt")["target"]
    assert [Path(p).name for p in (first, second, third)] == [
        "my.model.v1-pruned.safetensors", "my.model.v1-pruned(1).safetensors", "my.model.v1-bf16.ckpt",
    ]  # fmt: skip


def test_existing_target_needs_force(tmp_path, capsys):
    source = save(tmp_path / "a.safetensors", demo_arrays())
    (tmp_path / "b.safetensors").write_bytes(b"precious")
    status, out, err = run(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert (status, out) == (2, "")
    assert "exists" in err
    assert (tmp_path / "b.safetensors").read_bytes() == b"precious"
    run_json(capsys, "prune", source, "-o", tmp_path / "b.safetensors", "--force")
    assert_same(tmp_path / "b.safetensors", expected(demo_arrays()))


def test_human_output_tells_what_happened(demo_folder, tmp_path, capsys):
    source = demo_folder / "Stable-diffusion/sd-demo-bloated.ckpt"
    status, out, _ = run(capsys, "prune", source, "-o", tmp_path / "b.safetensors")
    assert status == 0
    size = (tmp_path / "b.safetensors").stat().st_size
    assert f"{size:,} bytes" in out
    assert "EMA" in out
    assert "F32 → F16" in out
    assert "verified" in out
    status, out, _ = run(capsys, "inspect", source)
    assert "SD-v1-Demo" in out
    assert "The state dict in use is state_dict." in out
    assert "UNET" in out


def test_inspect_lists_keys(demo_folder, capsys):
    source = demo_folder / "VAE/demo.vae.safetensors"
    keys = run_json(capsys, "inspect", source, "--keys")["keys"]
    header = {k: v for k, v in read_header(source)[0].items() if k != "__metadata__"}
    assert {k["key"]: (k["dtype"], k["shape"]) for k in keys} == {
        k: (v["dtype"], v["shape"]) for k, v in header.items()
    }
    assert "decoder.conv_in.weight" in run(capsys, "inspect", source, "--keys")[1]


def command(*arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "lib_toolkit", *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_no_torch_for_looking_at_or_pruning_a_model(demo_folder, tmp_path):
    source = demo_folder / "Stable-diffusion/sd-demo-bloated.ckpt"
    code = (
        "import sys; from lib_toolkit.cli.main import main\n"
        f"assert main(['inspect', {str(source)!r}]) == 0\n"
        "loaded = {m.split('.')[0] for m in sys.modules}\n"
        "assert not loaded & {'torch', 'gradio', 'safetensors'}, loaded\n"
        f"assert main(['prune', {str(source)!r}, '-o', {str(tmp_path / 'b.safetensors')!r}]) == 0\n"
        "assert not {m.split('.')[0] for m in sys.modules} & {'torch', 'gradio'}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def begun(folder: Path) -> bool:
    """Whether a temporary file of some size is there; others come and go."""
    try:
        return any(p.suffix == ".part" and p.stat().st_size > 1e6 for p in folder.iterdir())
    except FileNotFoundError:
        return False


@pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_a_save_leaves_nothing(tmp_path, number):
    source = tmp_path / "big.safetensors"
    stamped_safetensors(source, {k: ("F32", s) for k, s in architecture("sd1").table().items()})
    process = command("prune", source, "-o", tmp_path / "b.safetensors")
    deadline = time.monotonic() + 30
    while not begun(tmp_path):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "Cancelled; nothing was left behind.")
    assert [p.name for p in tmp_path.iterdir()] == ["big.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_sentence(demo_folder):
    source = demo_folder / "Stable-diffusion/sd-demo.safetensors"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lib_toolkit", "inspect", str(source), "--keys"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_stdout_may_go_away(demo_folder):
    source = demo_folder / "Stable-diffusion/sd-demo.safetensors"
    process = command("inspect", source, "--keys", "--json")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
