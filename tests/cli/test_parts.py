"""Export, import and new as a user runs them: component tensors bit for bit, and every other byte."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.cli.main import main
from tests.architectures.test_conversion import hf_arrays, openclip_by_hand
from tests.cli.test_commands import run, run_json
from tests.making import (
    of_arrays,
    read_header,
    safetensors_bytes,
    stamp_bytes,
    stamp_positions,
    stamped_safetensors,
)

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
BUFFERS = set(architecture("sd1").schedule())


def refused(capsys, target: Path, *arguments) -> str:
    """One sentence, exit 2, and nothing written."""
    status, out, err = run(capsys, *arguments, "-o", target)
    assert (status, out, target.exists()) == (2, "", False)
    assert err.count("\n") == 1
    return err


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    assert main(["demo", str(folder)]) == 0
    return folder


@pytest.fixture
def checkpoints(models) -> Path:
    return models / "Stable-diffusion"


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    torch = pytest.importorskip("torch")
    table = torch.load(path, weights_only=True)
    return {key: tensor.numpy() for key, tensor in table["state_dict"].items()}


def below(arrays, prefix: str) -> dict:
    """What stands under a prefix, by bare key."""
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def half(arrays) -> dict[str, np.ndarray]:
    return {
        key: array.astype("<f2") if array.dtype == np.float32 and key not in BUFFERS else array
        for key, array in arrays.items()
    }


def assert_same(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].tobytes() == array.tobytes(), key


def test_both_ways_give_the_same_components(models, checkpoints, tmp_path, capsys):
    """Easy: replace the VAE, then prune. Hard: export two components, and build a new model of three files."""
    source, vae = checkpoints / "sd-demo-bloated.ckpt", models / "VAE/demo.vae.safetensors"
    easy, hard, between = (tmp_path / name for name in ("easy.safetensors", "hard.safetensors", "between.ckpt"))
    run_json(capsys, "import", source, "VAE-v1-Demo", vae, "-o", between)
    run_json(capsys, "prune", between, "-o", easy)
    run_json(capsys, "export", source, "CLIP-v1-Demo", "-o", tmp_path / "c.safetensors")
    run_json(capsys, "export", source, "UNET-v1-Demo", "-o", tmp_path / "u.pt", "--precision", "keep")
    done = run_json(capsys, "new", "SD-v1-Demo", f"CLIP-v1-Demo={tmp_path / 'c.safetensors'}",
                    f"unet-v1-demo={tmp_path / 'u.pt'}", f"VAE-v1-Demo={vae}", "-o", hard)  # fmt: skip
    left, right = arrays_in(easy), arrays_in(hard)
    # What else differs is the schedule, which a new model does not invent.
    assert left.keys() - right.keys() == set(architecture("sd-v1-demo").schedule())
    assert_same(right, {key: array for key, array in left.items() if key in right})
    before = arrays_in(source)
    wanted = half({**below(before, UNET), **below(before, CLIP)}) | half(arrays_in(vae))
    assert_same({key.removeprefix(UNET).removeprefix(CLIP).removeprefix(VAE): a for key, a in right.items()}, wanted)
    assert [one["name"] for one in done["components"]] == ["CLIP-v1-Demo", "UNET-v1-Demo", "VAE-v1-Demo"]
    (entry,) = json.loads(read_header(hard)[0]["__metadata__"]["model_toolkit.history"])
    assert "source" not in entry
    assert [part["name"] for part in entry["parts"]] == ["c.safetensors", "u.pt", "demo.vae.safetensors"]
    assert run_json(capsys, "inspect", hard)["intact"]


def assert_stamped(path: Path, wanted: dict[str, tuple[str, str, tuple[int, ...]]]) -> None:
    """Every tensor of the file: type, shape, and the stamps of the key that it comes from."""
    header, start = read_header(path)
    header.pop("__metadata__")
    assert header.keys() == wanted.keys()
    with path.open("rb") as file:
        for key, (origin, dtype, shape) in wanted.items():
            entry = header[key]
            assert (entry["dtype"], tuple(entry["shape"])) == (dtype, shape), key
            size = {"F16": 2, "F32": 4, "I64": 8}[dtype]
            for index in stamp_positions(math.prod(shape)):
                file.seek(start + entry["data_offsets"][0] + index * size)
                assert file.read(size) == stamp_bytes(origin, index, dtype), (key, index)


def full_table() -> dict[str, tuple[str, tuple[int, ...]]]:
    shapes = {**architecture("sd1").table(ema=True), **architecture("sd1").schedule()}
    return {key: ("I64" if key.endswith("position_ids") else "F32", shape) for key, shape in shapes.items()}


def test_full_size_the_easy_way(tmp_path, capsys):
    """A half-precision model of 2.1 GB gets an FP32 VAE: every stamp is in its place."""
    table = {
        key: ("F32" if key in BUFFERS else "I64" if dtype == "I64" else "F16", shape)
        for key, (dtype, shape) in full_table().items()
        if not key.startswith("model_ema.")
    }
    source, vae, target = (tmp_path / f"{name}.safetensors" for name in ("half", "v.vae", "out"))
    stamped_safetensors(source, table)
    stamped_safetensors(vae, {key: ("F32", shape) for key, (_, shape) in below(table, VAE).items()})
    done = run_json(capsys, "import", source, "VAE-v1", vae, "-o", target)
    assert done["component"]["name"] == "VAE-v1-SD"
    assert_stamped(target, {key: (key.removeprefix(VAE), *value) for key, value in table.items()})
    for path in tmp_path.iterdir():
        path.unlink()


def test_full_size_the_hard_way(tmp_path, capsys):
    table, source, vae = full_table(), tmp_path / "big.safetensors", tmp_path / "v.vae.safetensors"
    stamped_safetensors(source, table)
    stamped_safetensors(vae, {key: ("F32", shape) for key, (_, shape) in below(table, VAE).items()})
    clip = run_json(capsys, "export", source, "CLIP-v1")["target"]
    unet = run_json(capsys, "export", source, "UNET-v1")["target"]
    assert [Path(path).name for path in (clip, unet)] == ["big.clip.safetensors", "big.unet.safetensors"]
    done = tmp_path / "done.safetensors"
    result = run_json(capsys, "new", "sd1", f"CLIP-v1={clip}", f"UNET-v1={unet}", f"VAE-v1={vae}", "-o", done)
    assert result["bytes"] == result["predicted_bytes"] == done.stat().st_size
    wanted = {
        key: (key.removeprefix(VAE), "I64" if dtype == "I64" else "F16", shape)
        for key, (dtype, shape) in table.items()
        if not key.startswith("model_ema.") and key not in BUFFERS
    }
    assert_stamped(done, wanted)
    for path in tmp_path.iterdir():
        path.unlink()


def test_every_other_byte_is_equal(models, checkpoints, tmp_path, capsys):
    source = checkpoints / "sd-demo-bloated.ckpt"
    target = tmp_path / "out.ckpt"
    before = source.read_bytes()
    done = run_json(capsys, "import", source, "VAE-v1-Demo", models / "VAE/demo.vae.safetensors", "-o", target,
                    "--precision", "bf16")  # fmt: skip
    torch = pytest.importorskip("torch")
    old, new = (torch.load(path, weights_only=True) for path in (source, target))
    assert (new["epoch"], new["global_step"]) == (12, 84_000)
    assert list(old["state_dict"]) == list(new["state_dict"])
    vae = arrays_in(models / "VAE/demo.vae.safetensors")
    for key, tensor in old["state_dict"].items():
        found = new["state_dict"][key]
        wanted = torch.from_numpy(vae[key.removeprefix(VAE)]).bfloat16() if key.startswith(VAE) else tensor
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    assert {change["key"] for change in done["changed"]} == {VAE + key for key in vae}
    assert source.read_bytes() == before


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_exports_of_unet_and_ema_are_two_unets(checkpoints, tmp_path, capsys, ending):
    before = arrays_in(checkpoints / "sd-demo-bloated.ckpt")
    for name, prefix in (("UNET-v1-Demo", UNET), ("UNET-v1-Demo-EMA", "model_ema.diffusion_model")):
        target = tmp_path / f"{name}.{ending}"
        done = run_json(capsys, "export", checkpoints / "sd-demo-bloated.ckpt", "UNET-v1-Demo", "--component", name,
                        "--precision", "keep", "-o", target)  # fmt: skip
        assert done["component"]["name"] == name
        found = arrays_in(target)
        assert found.keys() == below(before, UNET).keys()
        for key, array in found.items():
            old = before[prefix + (key.replace(".", "") if "ema" in prefix else key)]
            assert array.tobytes() == old.tobytes(), key


def test_default_names_of_exports_say_what_they_are(models, tmp_path, capsys):
    for name in ("Stable-diffusion/sd-demo-bloated.ckpt", "Stable-diffusion/xl/sdxl-demo-vpred.safetensors"):
        (tmp_path / Path(name).name).write_bytes((models / name).read_bytes())
    asked = [
        (("sd-demo-bloated.ckpt", "VAE-v1-Demo"), "sd-demo-bloated.vae.safetensors"),
        (("sd-demo-bloated.ckpt", "VAE-v1-Demo"), "sd-demo-bloated.vae(1).safetensors"),
        (("sd-demo-bloated.ckpt", "VAE-v1-Demo", "--format", "pt"), "sd-demo-bloated.vae.pt"),
        (("sd-demo-bloated.ckpt", "CLIP-v1-Demo"), "sd-demo-bloated.clip.safetensors"),
        (("sd-demo-bloated.ckpt", "UNET-v1-Demo-EMA"), "sd-demo-bloated-ema.unet.safetensors"),
        (("sdxl-demo-vpred.safetensors", "UNET-XL-Demo"), "sdxl-demo-vpred.unet.safetensors"),
    ]
    for (file, *rest), name in asked:
        target = Path(run_json(capsys, "export", tmp_path / file, *rest)["target"])
        assert (target.parent, target.name) == (tmp_path, name)
        assert target.exists()
    assert run_json(capsys, "inspect", tmp_path / "sd-demo-bloated.vae.pt")["kind"] == "vae"
    markers = {"v_pred", "ztsnr"}
    assert markers < arrays_in(tmp_path / "sdxl-demo-vpred.unet.safetensors").keys()
    back = tmp_path / "back.safetensors"
    run_json(capsys, "import", tmp_path / "sdxl-demo-vpred.safetensors", "UNET-XL-Demo",
             tmp_path / "sdxl-demo-vpred.unet.safetensors", "-o", back)  # fmt: skip
    assert_same(arrays_in(back), arrays_in(tmp_path / "sdxl-demo-vpred.safetensors"))


def test_an_ema_unet_of_the_same_file_becomes_the_unet(checkpoints, tmp_path, capsys):
    source, target = checkpoints / "sd-demo-bloated.ckpt", tmp_path / "out.safetensors"
    done = run_json(capsys, "import", source, "UNET-v1-Demo", source, "--component", "UNET-v1-Demo-EMA", "-o", target)
    before, after = arrays_in(source), arrays_in(target)
    for key, array in after.items():
        ema = "model_ema.diffusion_model" + key.removeprefix(UNET).replace(".", "")
        assert array.tobytes() == before[ema if key.startswith(UNET) else key].tobytes()
    assert any("EMA copy" in warning for warning in done["warnings"])
    (entry,) = json.loads(read_header(target)[0]["__metadata__"]["model_toolkit.history"])
    assert "parts" not in entry


def test_a_broken_model_is_written_only_when_allowed(models, checkpoints, tmp_path, capsys):
    broken, vae = checkpoints / "sd-demo-no-clip.safetensors", models / "VAE/demo.vae.safetensors"
    target = tmp_path / "out.safetensors"
    sentence = refused(capsys, target, "import", broken, "VAE-v1-Demo", vae)
    assert "lacks CLIP-v1-Demo" in sentence
    assert "--allow-incomplete" in sentence
    refused(capsys, target, "import", broken, "VAE-v1-Demo", vae, "--dry-run")
    run_json(capsys, "import", broken, "VAE-v1-Demo", vae, "-o", target, "--allow-incomplete")
    assert_same(below(arrays_in(target), VAE), half(arrays_in(vae)))
    target.unlink()
    sentence = refused(capsys, target, "new", "SD-v1-Demo", f"VAE-v1-Demo={vae}")
    assert "lacks UNET-v1-Demo, CLIP-v1-Demo" in sentence
    done = run_json(capsys, "new", "SD-v1-Demo", f"VAE-v1-Demo={vae}", "-o", target, "--allow-incomplete")
    assert done["architecture"] == "VAE-v1-Demo-BROKEN"
    assert arrays_in(target).keys() == {VAE + key for key in arrays_in(vae)}
    whole = tmp_path / "whole.safetensors"
    run_json(capsys, "import", broken, "CLIP-v1-Demo", checkpoints / "sd-demo-nai.ckpt", "-o", whole)
    assert_same(arrays_in(whole), arrays_in(checkpoints / "sd-demo.safetensors"))


def test_a_dry_run_predicts_and_writes_nothing(models, checkpoints, tmp_path, capsys):
    vae, sd = models / "VAE/demo.vae.safetensors", checkpoints / "sd-demo-nai.ckpt"
    target = tmp_path / "out.safetensors"
    verbs = (
        ("export", sd, "CLIP-v1-Demo"),
        ("import", sd, "VAE-v1-Demo", vae),
        ("new", "sd-v1-demo", f"UNET-v1-Demo={sd}", f"CLIP-v1-Demo={sd}", f"VAE-v1-Demo={vae}"),
    )
    for verb in verbs:
        plan = run_json(capsys, *verb, "-o", target, "--dry-run")
        assert list(tmp_path.iterdir()) == []
        assert (plan["dry_run"], plan["bytes"]) == (True, None)
        done = run_json(capsys, *verb, "-o", target)
        assert plan["predicted_bytes"] == done["bytes"] == target.stat().st_size
        assert "exists" in run(capsys, *verb, "-o", target)[2]
        run_json(capsys, *verb, "-o", target, "--force")
        target.unlink()


def test_wrong_use_is_one_sentence(models, checkpoints, tmp_path, capsys):
    sd, xl = checkpoints / "sd-demo.safetensors", checkpoints / "xl/sdxl-demo-vpred.safetensors"
    target = tmp_path / "out.safetensors"
    cases = [
        (("export", sd, "VAE-v9"), "VAE-v1-Demo"),
        (("export", models / "VAE/demo.vae.safetensors", "UNET-v1-Demo"), "has no UNET-v1-Demo"),
        (("import", sd, "CLIP-XL-G-Demo", xl), "which has no class CLIP-XL-G-Demo"),
        (("import", sd, "VAE-v1-Demo", models / "Lora/sd1-demo-lora.safetensors"), "has no VAE-v1-Demo"),
        (("import", sd, "VAE-v1-Demo", tmp_path / "nothing.pt"), "does not exist"),
        (("import", sd, "VAE-v1-Demo", xl, "--component", "VAE-x"), "no component 'VAE-x'"),
        (("new", "SD-v9", "VAE-v1=x"), "SD-v1"),
        (("new", "SD-v1", "VAE-v1"), "VAE-v1=FILE"),
        (("new", "SD-v1", f"VAE-v1={models / 'VAE/demo.vae.safetensors'}"), "[32, 3, 3, 3] where [128, 3, 3, 3]"),
    ]
    for arguments, part in cases:
        assert part in refused(capsys, target, *arguments)
    status, _, err = run(capsys, "import", sd, "VAE-v1-Demo", xl, "-o", xl, "--force")
    assert (status, "source itself" in err) == (2, True)
    status, _, err = run(capsys, "export", sd, "VAE-v1-Demo", "--format", "pt", "-o", tmp_path / "a.safetensors")
    assert (status, "make them agree" in err) == (2, True)


def test_text_says_which_component_and_what_happened(checkpoints, tmp_path, capsys):
    source = checkpoints / "sd-demo-bloated.ckpt"
    status, out, _ = run(capsys, "export", source, "UNET-v1-Demo", "-o", tmp_path / "u.safetensors")
    assert status == 0
    assert out.startswith("UNET-v1-Demo of sd-demo-bloated.ckpt: preferred to UNET-v1-Demo-EMA")
    assert "left out: not exported: VAE-v1-Demo (244 tensors)" in out
    assert len(out.splitlines()) < 12
    status, out, _ = run(capsys, "new", "SD-v1-Demo", f"UNET-v1-Demo={source}", f"VAE-v1-Demo={source}",
                         f"CLIP-v1-Demo={source}", "-o", tmp_path / "n.safetensors")  # fmt: skip
    assert status == 0
    assert "a new model" in out
    assert "244 × added: VAE-v1-Demo of sd-demo-bloated.ckpt, F32 → F16" in out


def test_a_value_too_large_for_the_place_keeps_its_type(models, checkpoints, tmp_path, capsys):
    vae = arrays_in(models / "VAE/demo.vae.safetensors")
    vae["decoder.conv_out.bias"] = np.array([1e6, 0, 0], "<f4")
    source, target = tmp_path / "v.safetensors", tmp_path / "out.safetensors"
    source.write_bytes(safetensors_bytes(of_arrays(vae)))
    asked = ("import", checkpoints / "sd-demo.safetensors", "VAE-v1-Demo", source)
    assert "decoder.conv_out.bias" in refused(capsys, target, *asked, "--strict")
    run_json(capsys, *asked, "-o", target)
    wanted = half({key: array.clip(-65504, 65504) for key, array in vae.items()}) | {
        "decoder.conv_out.bias": vae["decoder.conv_out.bias"]
    }
    assert_same(below(arrays_in(target), VAE), wanted)


def test_a_scaled_unet_keeps_types_and_scales(checkpoints, tmp_path, capsys):
    arrays = arrays_in(checkpoints / "sd-demo.safetensors")
    layer = UNET + "input_blocks.1.1.transformer_blocks.0.attn1.to_q."
    shape = arrays.pop(layer + "weight").shape
    raw = (zlib.crc32(b"fp8") % 90 + np.arange(math.prod(shape)) % 7).astype(np.uint8).tobytes()
    fp8 = {layer + "weight": ("F8_E4M3", shape, raw), UNET + "scaled_fp8": ("F8_E4M3", (0,), b"")}
    arrays[layer + "scale_weight"] = np.float32(0.25).reshape(())
    source, bare, target = (tmp_path / f"{name}.safetensors" for name in ("scaled", "unet", "out"))
    source.write_bytes(safetensors_bytes({**of_arrays(arrays), **fp8}))
    run_json(capsys, "export", source, "UNET-v1-Demo", "-o", bare)
    run_json(capsys, "import", checkpoints / "sd-demo-bloated.ckpt", "UNET-v1-Demo", bare, "-o", target)
    header, start = read_header(target)
    begin, end = header[layer + "weight"]["data_offsets"]
    assert header[layer + "weight"]["dtype"] == "F8_E4M3"
    assert target.read_bytes()[start + begin : start + end] == raw
    assert {layer + "scale_weight", UNET + "scaled_fp8"} <= header.keys()
    assert header[UNET + "out.2.weight"]["dtype"] == "F16"


def test_a_conversion_reads_checkpoints_and_checks_their_checksums(checkpoints, tmp_path, capsys):
    """q, k and v from three storages of a zip file become one tensor; a damaged storage is noticed."""
    torch = pytest.importorskip("torch")
    hf = hf_arrays(3, 64, 1000, projected=True)
    source, target = tmp_path / "hf.pt", tmp_path / "out.safetensors"
    torch.save({key: torch.from_numpy(array) for key, array in hf.items()}, source)
    xl, prefix = checkpoints / "xl/sdxl-demo-vpred.safetensors", "conditioner.embedders.1.model."
    run_json(capsys, "import", xl, "CLIP-XL-G-Demo", source, "-o", target)
    assert_same(below(arrays_in(target), prefix), openclip_by_hand(hf, 3))
    assert_same({k: a for k, a in arrays_in(target).items() if not k.startswith(prefix)},
                {k: a for k, a in arrays_in(xl).items() if not k.startswith(prefix)})  # fmt: skip
    target.unlink()
    data = source.read_bytes()
    place = data.index(hf["text_model.encoder.layers.1.self_attn.k_proj.weight"].tobytes())
    source.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert "damaged" in refused(capsys, target, "import", xl, "CLIP-XL-G-Demo", source)
