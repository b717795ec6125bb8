"""Each kind of model goes to its folder, at half precision, with what belongs to it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from lib_toolkit.autoprune import last_run, run_once, waiting
from lib_toolkit.autoprune.steps import run_of
from lib_toolkit.autoprune.telling import summary
from lib_toolkit.plan import PROVENANCE
from tests.autoprune import samples
from tests.autoprune.samples import arrays_of, assert_halved, library, metadata_of, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


KINDS = {
    "lora": ("Lora", samples.lora),
    "text_encoder": ("text_encoder", lambda: samples.part("text_encoder")),
    "unet": ("Components", lambda: samples.part("unet")),
    "embedding": ("embeddings", samples.embedding),
    "upscaler": ("ESRGAN", samples.upscaler),
    "adapter": ("ControlNet", samples.adapter),
    "hypernetwork": ("hypernetworks", samples.hypernetwork),
    "checkpoint": ("Stable-diffusion", samples.checkpoint),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_goes_to_its_folder_at_fp16_with_its_sidecars(lib, kind):
    folder, make = KINDS[kind]
    arrays = make()
    source = save(lib.drop / "My.model v1.5.safetensors", arrays, {"author": "somebody"})
    before = source.read_bytes()
    endings = [
        ".preview.png", ".civitai.info", ".json", ".yaml", ".txt", ".PNG", ".safetensors.json", ".description.txt",
        ".thumb.jpg", ".swarm.json",
    ]  # fmt: skip
    for ending in endings:
        (lib.drop / f"My.model v1.5{ending}").write_text(ending)
    (lib.drop / "My.model.txt").write_text("of another name")
    run = lib.run()
    result = lib.root / folder / "My.model v1.5.safetensors"
    told = {step.file: step.outcome for step in run.steps}
    assert told == {"My.model v1.5.safetensors": "written", "My.model.txt": "left"}
    assert_halved(result, arrays)
    assert metadata_of(result)["author"] == "somebody"
    for ending in endings:
        assert (lib.root / folder / f"My.model v1.5{ending}").read_text() == ending
    assert lib.files("Autoprune") == ["Autoprune/Done/My.model v1.5.safetensors", "Autoprune/My.model.txt"]
    assert (lib.drop / "Done" / source.name).read_bytes() == before
    assert lib.temporary() == []


def test_what_the_step_tells_is_true_and_stands_in_journal_and_metadata(lib):
    source = save(lib.drop / "a.safetensors", samples.lora())
    before, size = source.read_bytes(), source.stat().st_size
    seen = []
    run = lib.run(report=seen.append)
    (step,) = run.steps
    result = lib.root / "Lora" / "a.safetensors"
    assert [one.outcome for one in seen] == ["begun", "written"]
    assert (step.file, step.size, step.target) == ("a.safetensors", size, str(result))
    assert step.target_size == result.stat().st_size
    assert step.saved == size - result.stat().st_size == run.saved
    assert step.hashes["sha256"] == hashlib.sha256(before).hexdigest()
    assert step.target_hashes["sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()
    assert step.source == "Done/a.safetensors"
    assert [(one.what, one.count) for one in step.changed] == [("F32 → F16", 9)]
    history = json.loads(metadata_of(result)[PROVENANCE])
    assert history[-1]["source"]["sha256"] == step.hashes["sha256"]
    assert history[-1]["source"]["name"] == "a.safetensors"
    lines = [json.loads(line) for line in (lib.drop / "journal.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == ["begin", "intent", "step", "end"]
    assert lines[2]["hashes"]["sha256"] == step.hashes["sha256"]
    assert lines[2]["target_hashes"]["sha256"] == step.target_hashes["sha256"]
    told = last_run(lib.policy())
    assert told == run


def test_a_vae_becomes_pt_that_torch_reads_or_safetensors_by_setting(lib):
    import torch

    arrays = samples.part("vae")
    save(lib.drop / "kl.vae.safetensors", arrays)
    assert lib.run().counts == {"written": 1}
    state = torch.load(lib.folder("vae") / "kl.vae.pt", weights_only=True)["state_dict"]
    assert state.keys() == arrays.keys()
    for key, array in arrays.items():
        assert state[key].dtype == torch.float16
        assert np.array_equal(state[key].numpy(), array.astype("<f2")), key
    save(lib.drop / "other.vae.safetensors", samples.part("vae", seed=1))
    assert lib.run(vae_format="safetensors").counts == {"written": 1}
    assert_halved(lib.folder("vae") / "other.vae.safetensors", samples.part("vae", seed=1))


def test_a_training_checkpoint_of_pytorch_is_pruned(lib):
    import torch

    arrays = samples.checkpoint()
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    unet = {key: tensor for key, tensor in state.items() if key.startswith("model.diffusion_model.")}
    ema = {"model_ema." + key[len("model.") :].replace(".", ""): tensor + 0.01 for key, tensor in unet.items()}
    content = {"state_dict": {**state, **ema}, "epoch": 7, "optimizer_states": [{"exp_avg": torch.ones(1000)}]}
    torch.save(content, lib.drop / "trained.ckpt")
    (step,) = lib.run().steps
    assert step.outcome == "written"
    assert_halved(lib.folder("checkpoint") / "trained.safetensors", arrays)
    assert {one.reason: one.count for one in step.removed}["EMA copy, used only for training further"] == len(ema)
    lib_kept = lib.root.parent / "kept"
    kept = library(lib_kept)
    torch.save(content, kept.drop / "trained.ckpt")
    kept.run(keep_ema=True)
    assert ema.keys() < arrays_of(kept.folder("checkpoint") / "trained.safetensors").keys()


def test_a_clean_file_is_moved_byte_for_byte_without_a_second_copy(lib):
    source = save(lib.drop / "sub" / "clean.safetensors", samples.lora(dtype="<f2"), {"ss_tag": "x"})
    before, number = source.read_bytes(), source.stat().st_ino
    (lib.drop / "sub" / "clean.png").write_text("picture")
    (step,) = lib.run().steps
    result = lib.folder("lora") / "sub" / "clean.safetensors"
    assert (step.outcome, step.target, step.source, step.removed) == ("moved", str(result), "", ())
    assert result.read_bytes() == before
    assert result.stat().st_ino == number
    assert step.hashes["sha256"] == step.target_hashes["sha256"] == hashlib.sha256(before).hexdigest()
    assert lib.files() == ["Lora/sub/clean.png", "Lora/sub/clean.safetensors"]


def test_a_clean_file_under_a_false_ending_gets_the_right_one(lib):
    before = save(lib.drop / "clean.ckpt", samples.lora(dtype="<f2")).read_bytes()
    assert lib.run().counts == {"moved": 1}
    assert (lib.folder("lora") / "clean.safetensors").read_bytes() == before


def test_a_pickled_embedding_stays_as_the_webui_reads_it(lib):
    import torch

    content = {"string_to_param": {"*": torch.ones(4, 768)}, "string_to_token": {"*": 265}, "name": "x", "step": 9}
    torch.save(content, lib.drop / "style.pt")
    before = (lib.drop / "style.pt").read_bytes()
    assert lib.run().counts == {"moved": 1}
    assert (lib.folder("embedding") / "style.pt").read_bytes() == before


LEFT = {"done": ["Autoprune/Done/deep/a.safetensors"], "keep": ["Autoprune/deep/a.safetensors"], "delete": []}


@pytest.mark.parametrize(("sources", "left"), LEFT.items())
def test_sources(lib, sources, left):
    save(lib.drop / "deep" / "a.safetensors", samples.lora())
    (lib.drop / "deep" / "a.png").write_text("picture")
    assert lib.run(sources=sources).counts == {"written": 1}
    picture = ["Autoprune/deep/a.png"] if sources == "keep" else []
    assert lib.files("Autoprune") == sorted([*left, *picture])
    assert lib.files("Lora") == ["Lora/deep/a.png", "Lora/deep/a.safetensors"]
    # A source that was kept is not done again, until it changes.
    assert lib.run(sources=sources).steps == ()
    if sources == "keep":
        save(lib.drop / "deep" / "a.safetensors", samples.lora(seed=1))
        assert lib.run(sources=sources).counts == {"written": 1}
        assert "Lora/deep/a(1).safetensors" in lib.files("Lora")


def test_kept_sources_are_told_of(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    lib.run(sources="keep")
    run = lib.run(sources="keep")
    assert (run.steps, summary(run)) == ((), "Files: 1 dealt with before and kept in place.")
    assert run_of(run.as_json()["run"]).kept == 1
    (step,) = waiting(lib.policy(sources="keep"))
    assert (step.outcome, step.reason) == (
        "left",
        "It was dealt with before, and is left here until it or what is wished changes.",
    )
    save(lib.drop / "b.safetensors", samples.lora(2))
    dry = run_once(lib.policy(sources="keep"), pause=0.01, dry=True)
    assert summary(dry).startswith("Files: 1 to prune, 1 dealt with before and kept in place;")
    assert summary(lib.run(sources="keep")).startswith("Files: 1 pruned, 1 dealt with before and kept in place;")


@pytest.mark.parametrize(
    "wish", [{"precision": "bf16"}, {"vae_format": "safetensors"}, {"keep_ema": True}, {"fix_clip": True}]
)
def test_other_wishes_deal_with_kept_sources_again(lib, wish):
    save(lib.drop / "a.safetensors", samples.lora())
    lib.run(sources="keep")
    assert lib.run(sources="keep", **wish).counts == {"written" if "precision" in wish else "duplicate": 1}
    assert lib.run(sources="keep", **wish).counts == {}


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("sources", ["done", "delete"])
def test_sources_that_were_kept_go_to_done_once_they_are_not_to_be_kept(lib, dtype, sources):
    save(lib.drop / "deep" / "a.safetensors", samples.lora(dtype=dtype))
    (lib.drop / "deep" / "a.png").write_text("picture")
    lib.run(sources="keep")
    before = lib.files("Lora")
    (dry,) = run_once(lib.policy(sources=sources), pause=0.01, dry=True).steps
    (step,) = lib.run(sources=sources).steps
    assert dry.foreseen == step.outcome == "duplicate"
    assert step.source == "Done/deep/a.safetensors"
    assert lib.files("Lora") == before
    assert lib.files("Autoprune") == ["Autoprune/Done/deep/a.png", "Autoprune/Done/deep/a.safetensors"]
    assert lib.run(sources=sources).steps == ()


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_a_lost_result_is_made_again_of_its_kept_source(lib, dtype):
    save(lib.drop / "a.safetensors", samples.lora(dtype=dtype))
    lib.run(sources="keep")
    result = lib.folder("lora") / "a.safetensors"
    before = result.read_bytes()
    result.rename(result.with_name("other.safetensors"))
    assert lib.run(sources="keep").counts == {"duplicate": 1}
    result.with_name("other.safetensors").unlink()
    assert sum(lib.run(sources="keep").counts.values()) == 1
    assert result.read_bytes() == before
    assert lib.run(sources="keep").counts == {}


def test_sub_folders_are_carried_over(lib):
    save(lib.drop / "anime" / "new ones" / "a.safetensors", samples.lora())
    save(lib.drop / "anime" / "bad.safetensors", {"what": np.ones(3, "<f4")})
    lib.run()
    assert lib.files() == [
        "Autoprune/Done/anime/new ones/a.safetensors",
        "Autoprune/Failed/anime/bad.safetensors",
        "Autoprune/Failed/anime/bad.safetensors.why.txt",
        "Lora/anime/new ones/a.safetensors",
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "keep"])
def test_precision_of_the_policy(lib, precision):
    source = save(lib.drop / "a.safetensors", samples.lora())
    before = source.read_bytes()
    (step,) = lib.run(precision=precision).steps
    result = lib.folder("lora") / "a.safetensors"
    if precision == "bf16":
        header = json.loads(result.read_bytes()[8 : 8 + int.from_bytes(result.read_bytes()[:8], "little")])
        assert {entry["dtype"] for key, entry in header.items() if key != "__metadata__"} == {"BF16"}
    else:
        assert step.outcome == "moved"
        assert result.read_bytes() == before


def test_a_tensor_that_would_vanish_keeps_its_type(lib):
    arrays = samples.lora(1)
    up = next(key for key in arrays if "lora_up" in key)
    alpha = next(key for key in arrays if "alpha" in key)
    arrays[up] = np.full(arrays[up].shape, 1e-9, "<f4")
    arrays[alpha] = np.array(1e-8, "<f4")
    save(lib.drop / "a.safetensors", arrays)
    (step,) = lib.run(sources="delete").steps
    found = arrays_of(lib.folder("lora") / "a.safetensors")
    assert {key: array.dtype for key, array in found.items() if array.dtype != np.float16} == {up: "<f4", alpha: "<f4"}
    assert np.array_equal(found[up], arrays[up]) and found[alpha] == arrays[alpha]
    assert any("too small for F16" in finding for finding in step.findings)
    assert not any("became zero" in finding for finding in step.findings)


def test_values_that_overflow_keep_their_type_and_are_told_of(lib):
    arrays = samples.lora()
    key = next(iter(arrays))
    arrays[key][0, 0] = 1e6
    save(lib.drop / "hot.safetensors", arrays)
    (step,) = lib.run().steps
    assert step.outcome == "written"
    assert any("too large for F16" in finding for finding in step.findings)
    found = arrays_of(lib.folder("lora") / "hot.safetensors")
    assert found[key].dtype == np.float32
    assert found[key][0, 0] == 1e6


@pytest.mark.parametrize("shape", [(1, 768), (4, 1024), (1280,)])
@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_textual_inversions_as_diffusers_writes_them_are_embeddings(lib, shape, ending):
    import torch

    array = samples.values("emb", shape)
    path = lib.drop / f"learned_embeds{ending}"
    if ending == ".bin":
        torch.save({"<cat-toy>": torch.from_numpy(array)}, path)
    else:
        save(path, {"<cat-toy>": array})
    before = path.read_bytes()
    (step,) = lib.run().steps
    assert step.kind == "embedding"
    result = lib.folder("embedding") / path.name
    if ending == ".bin":
        assert (step.outcome, result.read_bytes()) == ("moved", before)
    else:
        assert_halved(result, {"<cat-toy>": array})


@pytest.mark.parametrize("half", ["lora_up", "lora_down"])
def test_half_a_lora_fails(lib, half):
    save(lib.drop / "a.safetensors", {key: array for key, array in samples.lora().items() if half not in key})
    (step,) = lib.run().steps
    assert step.outcome == "failed"
    assert f"the {half[5:]} halves are missing" in step.reason
    assert lib.files("Lora") == []


def test_a_lora_that_lacks_a_half_somewhere_is_told_of(lib):
    arrays = samples.lora()
    lost = next(key for key in arrays if "lora_up" in key)
    del arrays[lost]
    save(lib.drop / "a.safetensors", arrays)
    (step,) = lib.run().steps
    assert step.outcome == "written"
    assert any("1 of 3 (up halves missing)" in finding for finding in step.findings)
    assert_halved(lib.folder("lora") / "a.safetensors", arrays)


def test_a_glora_is_a_lora(lib):
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {"a1": (768, 4), "a2": (4, 768), "b1": (320, 4), "b2": (4, 768)}
    arrays = {f"{place}.{name}.weight": samples.values(name, shape) for name, shape in shapes.items()}
    save(lib.drop / "a.safetensors", arrays)
    (step,) = lib.run().steps
    assert (step.outcome, step.kind, step.architecture) == ("written", "lora", "LoRA-v1")
    assert_halved(lib.folder("lora") / "a.safetensors", arrays)


def test_a_checkpoint_that_lacks_a_vae_alone_is_of_use(lib):
    vae = samples.PREFIXES["vae"]
    arrays = {key: array for key, array in samples.checkpoint().items() if not key.startswith(vae)}
    half = [key for key in samples.checkpoint() if key.startswith(vae)][:5]
    save(lib.drop / "without.safetensors", arrays)
    save(lib.drop / "half.safetensors", {**arrays, **{key: samples.checkpoint()[key] for key in half}})
    save(lib.drop / "elsewhere.safetensors", {**arrays, **{f"vae.{k}": v for k, v in samples.part("vae").items()}})
    steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {
        "without.safetensors": "written", "half.safetensors": "failed", "elsewhere.safetensors": "failed",
    }  # fmt: skip
    assert any("no VAE inside: choose one in the WebUI" in finding for finding in steps["without.safetensors"].findings)
    assert_halved(lib.folder("checkpoint") / "without.safetensors", arrays)
