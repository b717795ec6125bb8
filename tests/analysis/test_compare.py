"""Two models side by side: what meets what, and what is said about it."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from lib_toolkit.analysis.compare import figures
from lib_toolkit.analysis.compare.pairs import compare, compare_pairs
from lib_toolkit.analysis.compare.triples import compare_with_third
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.errors import FormatError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.progress import Progress, Status
from lib_toolkit.reports.compare_published import published
from lib_toolkit.tensors import nbytes
from tests.analysis.samples import demo, half, part, save
from tests.making import safetensors_bytes

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def run(tmp_path, a, b, **options):
    paths = [x if hasattr(x, "suffix") else save(tmp_path / f"{n}.safetensors", x) for n, x in (("a", a), ("b", b))]
    with open_model(paths[0]) as first, open_model(paths[1]) as second:
        return compare((first, second), (identify(first), identify(second)), **options)


def component(found, name):
    return next(group for group in found.by_component() if group.component == name)


def said(found, words):
    assert any(words in sentence for sentence in found.verdicts), found.verdicts


def diffusers_unet(arrays):
    """The UNet in diffusers names; its projections are convolutions there too."""
    family = architecture("sd-v1-demo").parts[0].component.family
    names = family.renames("diffusers")
    return {names[key]: array for key, array in part(arrays, UNET).items()}


def diffusers_vae(arrays):
    family = next(p.component.family for p in architecture("sd-v1-demo").parts if p.prefix == VAE)
    names, shapes = family.renames("diffusers"), family.within("diffusers").table()
    return {names[key]: array.reshape(shapes[names[key]]) for key, array in part(arrays, VAE).items()}


def openclip(arrays, layers):
    """A text encoder in OpenCLIP's names, with fused projections: written from the published conversion by hand."""
    made = {
        "token_embedding.weight": arrays["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": arrays["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": arrays["text_model.final_layer_norm.weight"],
        "ln_final.bias": arrays["text_model.final_layer_norm.bias"],
    }
    short = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    short["self_attn.out_proj"] = "attn.out_proj"
    for number in range(layers):
        here, there = f"text_model.encoder.layers.{number}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            for long, brief in short.items():
                made[f"{there}.{brief}.{kind}"] = arrays[f"{here}.{long}.{kind}"]
            parts = [arrays[f"{here}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            made[f"{there}.attn.in_proj_{kind}"] = np.concatenate(parts)
    return made


def test_shifted_by_a_quarter_whatever_the_order_of_keys(tmp_path):
    a = {key: np.round(array, 2).astype("<f4") for key, array in part(demo(), VAE).items()}
    b = {key: a[key] + np.float32(0.25) for key in reversed(list(a))}
    total = run(tmp_path, a, b).total()
    assert total.measures.mean == pytest.approx(0.25, rel=1e-6)
    assert total.measures.rms == pytest.approx(0.25, rel=1e-6)
    assert total.measures.largest == pytest.approx(0.25, rel=1e-5)
    assert total.figure("l0") == len(a) == total.changed_tensors


def test_sums_of_groups_are_those_of_concatenated_vectors(tmp_path):
    a = demo()
    rng = np.random.default_rng(0)
    b = {k: v + (rng.standard_normal(v.shape) * 0.01).astype("<f4") if v.dtype == "f4" else v for k, v in a.items()}
    found = run(tmp_path, a, b)
    for name, prefix in (("unet", UNET), ("vae", VAE), ("text_encoder", CLIP)):
        keys = [key for key in a if key.startswith(prefix) and not key.endswith("position_ids")]
        delta = np.concatenate([(a[k].astype("f8") - b[k]).reshape(-1) for k in keys])
        flat = np.concatenate([a[k].astype("f8").reshape(-1) for k in keys])
        group = component(found, name)
        assert group.figure("l2") == pytest.approx(np.linalg.norm(delta), rel=1e-6)
        assert group.figure("l1") == pytest.approx(np.abs(delta).sum(), rel=1e-6)
        assert group.measures.relative == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(flat), rel=1e-6)
        blocks = [one for one in found.by_block() if one.component == name]
        assert sum(len(one.members) for one in blocks) == len(keys)
        assert np.sqrt(sum(one.measures.l2_squared for one in blocks)) == pytest.approx(group.measures.l2, rel=1e-12)
    base, *others = found.by_merge_block()
    assert base.name == "BASE"
    assert [one.name for one in others] == [f"IN{i:02d}" for i in range(12)] + ["M00"] + [
        f"OUT{i:02d}" for i in range(12)
    ]
    assert sum(len(one.members) for one in others) == sum(key.startswith(UNET) for key in a)


@pytest.mark.parametrize(
    ("name", "counts"), [("sd1", [80, 80, 526]), ("sd2", [80, 80, 526]), ("sdxl", [350, 350, 980])]
)
def test_published_panels_of_real_key_names(name, counts):
    table = dict.fromkeys(architecture(name).table(), 1.0)
    assert [len(values) for values in figures.by_panel(table).values()] == counts


def test_everything_equal(tmp_path):
    found = run(tmp_path, demo(), demo())
    assert found.verdicts[0] == "A and B hold the same values: all 977 tensors are equal."
    said(found, "Same UNet: all 684 tensors are equal.")
    said(found, "Same text encoder")
    said(found, "Same VAE")
    assert (found.only_a, found.only_b, found.not_compared) == ((), (), ())
    assert found.total().figure("cosine") == pytest.approx(1, abs=1e-12)


def test_novelai_names_whatever_the_file_is_called(tmp_path):
    found = run(tmp_path, demo(), demo(nai=True))
    assert found.total().changed_tensors == 0
    said(
        found, "Same text encoder: all 36 tensors are equal, though named otherwise (Hugging Face in A, NovelAI in B)."
    )
    assert sum(one.renamed for one in found.compared) == 37


def test_only_the_decoder_was_trained(tmp_path):
    b = demo()
    for key in b:
        if key.startswith((VAE + "decoder.", VAE + "post_quant_conv.")):
            b[key] = b[key] + np.float32(0.01)
    found = run(tmp_path, demo(), b)
    said(found, "Only the decoder of the VAE was trained: its encoder is equal")
    said(found, "Same UNet")
    blocks = {one.name: one.changed_tensors for one in found.by_block() if one.component == "vae"}
    assert blocks["ENC0"] == blocks["ENCM"] == 0 < blocks["DEC0"]


def test_a_decoder_without_the_other_encoder(tmp_path):
    b = {k: v + np.float32(0.01) if ".decoder." in k else v for k, v in demo().items()}
    without = {k: v for k, v in b.items() if not k.startswith((VAE + "encoder.", VAE + "quant_conv."))}
    found = run(tmp_path, demo(), without)
    assert not any("encoder is equal" in sentence for sentence in found.verdicts)
    said(found, "The decoder of the VAE differs, its encoder cannot be compared")
    b[VAE + "encoder.conv_in.weight"] = np.zeros((7, 3, 3, 3), "<f4")
    found = run(tmp_path, demo(), b)
    rest = sum(key.startswith((VAE + "encoder.", VAE + "quant_conv.")) for key in b) - 1
    said(found, f"Of the VAE the decoder differs, and {rest} tensors of its encoder that can be compared are equal")


def test_not_all_layers_where_most_are_absent(tmp_path):
    b = {k: v * np.float32(1.25) if k.startswith((UNET, CLIP)) and v.dtype == "f4" else v for k, v in demo().items()}
    b = {k: v for k, v in b.items() if not k.startswith((UNET + "output_blocks", CLIP + "text_model.encoder.layers.1"))}
    found = run(tmp_path, demo(), b)
    absent = sum(key.startswith(UNET + "output_blocks") for key in demo())
    said(found, f"All {684 - absent} tensors of the UNet that can be compared changed")
    said(found, f"{absent} tensors of the UNet are only in A.")
    said(found, "The one layer of the text encoder that can be compared changed")
    assert not any("All layers" in sentence for sentence in found.verdicts)


def test_loose_tensors_of_other_shapes_are_told(tmp_path):
    a = {**demo(), "extra.one": np.ones(3, "<f4"), "extra.two": np.ones(3, "<f4"), "extra.three": np.ones(3, "<f4")}
    b = {**a, "extra.one": np.ones(4, "<f4"), "extra.two": np.ones((3, 1), "<f4"), "betas": np.ones(7, "<f4")}
    found = run(tmp_path, a, b)
    said(found, "Of 3 other tensors in both 2 differ in shape.")
    said(found, "Of 12 tensors of the noise schedule in both 1 differs in shape.")
    assert found.verdicts[0] == "Of 980 tensors that both have 977 are equal and 3 differ in shape."


def test_three_of_twelve_layers(tmp_path):
    """Real names and numbers of layers of SD1's text encoder, at a small width."""
    from lib_toolkit.architectures.clip import CLIPText

    table = CLIPText(width=64, ff=128, vocab=100).table(rare=False)
    rng = np.random.default_rng(0)
    a = {k: rng.standard_normal(s).astype("<f4") for k, s in table.items() if not k.endswith("position_ids")}
    b = dict(a)
    for number in (0, 7, 11):
        key = f"text_model.encoder.layers.{number}.mlp.fc1.weight"
        b[key] = a[key] * np.float32(1.5)
    said(run(tmp_path, a, b), "3 of 12 layers of the text encoder changed (number 0, 7 and 11); ‖A−B‖")


def test_all_layers_changed(tmp_path):
    b = {k: v * np.float32(1.25) if v.dtype == "f4" else v for k, v in demo().items()}
    found = run(tmp_path, demo(), b)
    said(found, "All layers of the UNet changed; ‖A−B‖ is 25 % of ‖A‖, cosine 1.000000.")
    said(found, "All 2 layers of the text encoder changed, and the embeddings and the final norm")


def test_only_one_kind_of_layer_changed(tmp_path):
    b = {k: v * np.float32(1.1) if ".attn2." in k else v for k, v in demo().items()}
    said(run(tmp_path, demo(), b), "only in layers of the kind attn2")


def test_ema_was_pruned(tmp_path):
    a = demo()
    ema = {"model_ema." + k[len("model.") :].replace(".", ""): v for k, v in a.items() if k.startswith(UNET)}
    found = run(tmp_path, {**a, **ema, "model_ema.num_updates": np.array(551602, "<i4")}, a)
    said(found, "EMA pruned: A holds an EMA copy of the UNet (684 tensors), B does not.")
    said(found, "1 other tensor is only in A.")
    assert len(found.only_a) == 685
    assert found.verdicts[0].startswith("Where A and B have the same tensors they hold the same values: all 977")


def test_schedule_and_vae_are_missing(tmp_path):
    b = {key: array for key, array in demo().items() if key.startswith((UNET, CLIP))}
    found = run(tmp_path, demo(), b)
    said(found, "The schedule buffers (12 tensors) are missing in B.")
    said(found, "Only A has a VAE (244 tensors).")
    assert all(group.component not in ("vae", "schedule") for group in found.by_component())


def test_identical_under_half_precision(tmp_path):
    found = run(tmp_path, demo(), half(demo()))
    assert found.verdicts[0] == "A and B are identical under half precision: rounded to F16 no value differs."
    said(found, "A is stored at F32, B at F16.")
    assert found.total().changed_tensors > 900


def test_at_lower_precision_says_what_was_cast(tmp_path):
    found = run(tmp_path, demo(), half(demo()), at_lower=True)
    assert found.total().changed_tensors == 0
    assert found.at_lower
    assert found.verdicts[0] == "A and B hold the same values once A is cast to F16: all 977 tensors are equal."
    said(found, "Same UNet once A is cast to F16: all 684 tensors are equal.")
    said(found, "A is stored at F32, B at F16.")
    alike = run(tmp_path, demo(), demo(), at_lower=True)
    assert alike.verdicts[0] == "A and B hold the same values: all 977 tensors are equal."


def test_a_part_that_is_identical_under_half_precision(tmp_path):
    found = run(tmp_path, half(part(demo(), VAE)), demo())
    assert found.verdicts[0] == "What both have is identical under half precision: rounded to F16 no value differs."
    said(found, "The VAE is identical under half precision: rounded to F16 no value differs.")
    b = demo()
    b[VAE + "encoder.conv_in.weight"] = np.zeros((7, 3, 3, 3), "<f4")
    found = run(tmp_path, half(part(demo(), VAE)), b)
    words = "rounded to F16 no value differs; 1 differs in shape."
    assert found.verdicts[0] == f"What can be compared is identical under half precision: {words}"
    said(found, "What can be compared of the VAE is identical under half precision")


def test_nothing_is_cast_to_fp8(tmp_path):
    """Values that F8_E4M3 does not hold: the finer side stays as it is, and that is said."""
    values = {key: np.float32(0.3) * np.ones(array.shape, "<f4") for key, array in part(demo(), VAE).items()}
    stored = {key: ("F8_E4M3", array.shape, b"\x2a" * array.size) for key, array in values.items()}  # 0.3125
    paths = [save(tmp_path / "a.safetensors", half(values)), tmp_path / "b.safetensors"]
    paths[1].write_bytes(safetensors_bytes(stored))
    found = run(tmp_path, *paths, at_lower=True)
    assert found.total().measures.mean == pytest.approx(0.3125 - float(np.float16(0.3)), rel=1e-5)
    said(found, "F16 and F8_E4M3 were compared as they are: nothing is cast to FP8, so that rounding alone can")
    assert not any("nothing is cast" in sentence for sentence in run(tmp_path, *paths).verdicts)


def test_one_value_off_is_not_identical_under_half_precision(tmp_path):
    b = half(demo())
    key = UNET + "out.2.weight"
    b[key] = b[key].copy()
    b[key].reshape(-1)[-1] += np.float16(0.01)
    found = run(tmp_path, demo(), b)
    assert "identical" not in found.verdicts[0]
    assert run(tmp_path, demo(), b, at_lower=True).total().changed_tensors == 1


@pytest.mark.parametrize("convert", [diffusers_unet, diffusers_vae])
def test_diffusers_layout(tmp_path, convert):
    found = run(tmp_path, demo(), convert(demo()))
    assert found.total().changed_tensors == 0
    assert len(found.compared) == len(convert(demo()))
    assert (found.only_b, found.not_compared) == ((), ())
    said(found, "(ldm in A, diffusers in B)")


def test_a_prefixed_and_a_bare_component(tmp_path):
    found = run(tmp_path, part(demo(), VAE), demo())
    assert len(found.compared) == 244
    said(found, "Same VAE: all 244 tensors are equal.")
    said(found, "Only B has a UNet (684 tensors).")


def test_fused_projections_meet_split_ones(tmp_path):
    a = part(demo(), CLIP)
    b = openclip(a, 2)
    key = "transformer.resblocks.1.attn.in_proj_weight"
    b[key] = b[key].copy()
    width = b[key].shape[1]
    b[key][width : 2 * width] += np.float32(0.5)  # the rows of k
    found = run(tmp_path, a, b)
    changed = [one.row for one in found.compared if not one.measures.identical]
    assert [row.key for row in changed] == ["text_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert [cell.key for cell in changed[0].cells] == ["text_model.encoder.layers.1.self_attn.k_proj.weight", key]
    assert (changed[0].block, changed[0].layer) == ("L01", "attn")
    assert len(found.compared) == 36


def test_dropped_added_and_reshaped(tmp_path):
    a, b = demo(), demo()
    del b[VAE + "quant_conv.bias"]
    b["extra.thing"] = np.ones(3, "<f4")
    wide = VAE + "encoder.conv_in.weight"
    b[wide] = np.zeros((7, 3, 3, 3), "<f4")
    found = run(tmp_path, a, b)
    assert [row.key for row in found.only_a] == ["quant_conv.bias"]
    assert [row.key for row in found.only_b] == ["extra.thing"]
    (failed,) = found.not_compared
    assert failed.row.key == "encoder.conv_in.weight"
    assert failed.reason == f"shape {list(a[wide].shape)} in A, [7, 3, 3, 3] in B"
    said(found, "1 tensor of the VAE is only in A.")
    said(found, "Of 243 tensors of the VAE 1 differs in shape.")
    assert found.verdicts[0] == "Of 976 tensors that both have 975 are equal and 1 differs in shape."
    said(found, "The 242 tensors of the VAE that can be compared are equal.")


def test_another_text_encoder(tmp_path):
    a = {**demo()}
    b = {
        key: np.zeros((2,) * array.ndim, "<f4") if key.startswith(CLIP) and array.ndim else array
        for key, array in a.items()
    }
    b = {key: array for key, array in b.items() if not key.endswith("position_ids")}
    found = run(tmp_path, a, b)
    assert len(found.not_compared) == 36
    assert all(one.reason.startswith("shape") for one in found.not_compared)


def test_different_architectures_compare_what_is_common(tmp_path):
    found = run(tmp_path, demo(), demo("sdxl-demo"))
    said(found, "A is SD-v1-Demo, B is SDXL-Demo: what both have is compared.")
    failed = len(found.not_compared)
    assert failed and f" and {failed:,} differ in shape." in found.verdicts[0]
    said(found, "Same VAE")


def test_nothing_in_common(tmp_path):
    found = run(tmp_path, part(demo(), VAE), part(demo(), CLIP))
    said(found, "there is nothing to compare")
    assert found.total().members == ()


def test_not_a_number(tmp_path):
    a, b = demo(), demo()
    key = UNET + "time_embed.0.weight"
    b[key] = b[key].copy()
    b[key][0, :5] = np.nan
    found = run(tmp_path, a, b)
    said(found, "B holds 5 NaN values")
    assert found.total().measures.l2 == 0
    assert found.total().measures.changed == 5
    assert found.total().measures.cosine == pytest.approx(1, abs=1e-12)


def test_quantised_models_are_told(tmp_path):
    a = part(demo(), VAE)
    b = {**a, "encoder.conv_in.scale_weight": np.array(0.5, "<f4"), "scaled_fp8": np.array(0, "<f4")}
    said(run(tmp_path, a, b), "B is quantised (")


def test_counters_and_buffers_take_no_part_in_the_total(tmp_path):
    a, b = demo(), demo()
    a["model_ema.num_updates"], b["model_ema.num_updates"] = np.array(1, "<i4"), np.array(551602, "<i4")
    b["betas"] = b["betas"] + np.float32(1)
    ids = CLIP + "text_model.embeddings.position_ids"
    b[ids] = b[ids] + 1
    found = run(tmp_path, a, b)
    assert found.total().measures.l2 == 0
    assert component(found, "schedule").measures.l1 == pytest.approx(1000, rel=1e-6)
    kinds = {one.row.key: one.row.kind for one in found.compared if not one.measures.identical}
    assert kinds == {
        "model_ema.num_updates": "counter",
        "betas": "buffer",
        "text_model.embeddings.position_ids": "buffer",
    }
    said(found, "The position ids of the text encoder differ")


def test_lora(tmp_path):
    rng = np.random.default_rng(0)
    a = {}
    for number in range(3):
        module = f"lora_te_text_model_encoder_layers_{number}_self_attn_q_proj"
        a[f"{module}.lora_down.weight"] = rng.standard_normal((4, 768)).astype("<f4")
        a[f"{module}.lora_up.weight"] = rng.standard_normal((768, 4)).astype("<f4")
    b = {key: array + np.float32(0.25) for key, array in a.items()}
    found = run(tmp_path, a, b)
    assert found.total().measures.mean == pytest.approx(0.25, rel=1e-6)
    assert component(found, "lora").changed_tensors == 6


def test_many_pairs_read_each_file_once(tmp_path):
    """Three steps of training: orthogonal steps add by squares, parallel ones by lengths."""
    base = part(demo(), VAE)
    step = {key: np.zeros_like(array) for key, array in base.items()}
    other = {key: np.zeros_like(array) for key, array in base.items()}
    first, *_, last = base
    step[first] += np.float32(0.5)
    other[last] += np.float32(0.25)
    sets = {
        "0": base,
        "1": {k: base[k] + step[k] for k in base},
        "2": {k: base[k] + step[k] + other[k] for k in base},
        "3": {k: base[k] + 2 * step[k] for k in base},
    }
    read = {}
    with ExitStack() as stack:
        models = []
        for name, arrays in sets.items():
            model = stack.enter_context(open_model(save(tmp_path / f"{name}.safetensors", arrays)))
            read[name] = 0

            def count(offset, data, name=name):
                read[name] += len(data)

            model.origin.file.observer = count
            models.append(model)
        pairs = [(0, 1), (1, 2), (0, 2), (1, 3), (0, 3), (3, 2)]
        results = compare_pairs(models, [identify(model) for model in models], pairs)
        sizes = {name: sum(nbytes(t) for t in model.tensors.values()) for name, model in zip(sets, models, strict=True)}
    assert read == sizes
    d = {pair: one.total().measures.l2 for pair, one in zip(pairs, results, strict=True)}
    assert d[0, 1] ** 2 + d[1, 2] ** 2 == pytest.approx(d[0, 2] ** 2, rel=1e-5)
    assert d[0, 1] + d[1, 3] == pytest.approx(d[0, 3], rel=1e-5)
    alone = run(tmp_path, tmp_path / "3.safetensors", tmp_path / "2.safetensors")
    assert alone.total().measures == results[-1].total().measures


def test_a_pickled_checkpoint_against_safetensors(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = part(demo(), VAE)
    path = tmp_path / "v.ckpt"
    state = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    key = next(k for k, t in state.items() if t.ndim == 4)
    state[key] = state[key].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)  # strides of another order
    torch.save({"state_dict": state, "epoch": 3}, path)
    found = run(tmp_path, path, save(tmp_path / "s.safetensors", arrays))
    assert found.verdicts[0].startswith("A and B hold the same values: all 244")


def test_the_same_bits_with_one_or_eight_workers(tmp_path):
    b = {k: v * np.float32(1.001) if v.dtype == "f4" else v for k, v in demo().items()}
    results = [run(tmp_path, demo(), b, workers=workers) for workers in (1, 8)]
    assert [one.measures for one in results[0].compared] == [one.measures for one in results[1].compared]
    assert results[0].total().measures == results[1].total().measures


def test_a_damaged_checkpoint_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = part(demo(), VAE)
    path = tmp_path / "v.ckpt"
    torch.save({"state_dict": {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}}, path)
    with open_model(path) as model:
        offset = model.tensors["decoder.conv_in.weight"].offset
    data = bytearray(path.read_bytes())
    data[offset + 40 : offset + 43] = bytes(byte ^ 0x11 for byte in data[offset + 40 : offset + 43])
    path.write_bytes(data)
    whole = save(tmp_path / "s.safetensors", arrays)
    with pytest.raises(FormatError, match=r"v\.ckpt is damaged: the checksum of .* does not fit"):
        run(tmp_path, whole, path)


def test_a_pair_is_the_same_whatever_other_pairs_are_asked_for(tmp_path):
    """A third model in Hugging Face's layout does not split what two openclip models store in one piece."""
    split = part(demo(), CLIP)
    fused = openclip(split, 2)
    arrays = (fused, {key: array + np.float32(0.5) for key, array in fused.items()}, split)
    with ExitStack() as stack:
        models = [
            stack.enter_context(open_model(save(tmp_path / f"{number}.safetensors", one)))
            for number, one in enumerate(arrays)
        ]
        found = [identify(model) for model in models]
        alone = compare((models[0], models[1]), (found[0], found[1]))
        first, second = compare_pairs(models, found, [(0, 1), (0, 2)])
        assert (first.compared, first.verdicts) == (alone.compared, alone.verdicts)
        assert published(first, "l2") == published(alone, "l2")
        told: list[Status] = []
        third = compare_with_third(tuple(models), tuple(found), Progress(told.append))
        assert third.compared == alone.compared
        # Position ids, which openclip has not, meet nothing.
        read = [[nbytes(x) for key, x in model.tensors.items() if "position_ids" not in key] for model in models]
        sizes = [sum(one) for one in read]
        assert {status.total for status in told} == {2 * sizes[0] + 2 * sizes[1] + sizes[2]}, "two passes, one bar"
        done = [status.done for status in told]
        assert done == sorted(done) and done[-1] == told[-1].total
    assert (len(first.compared), len(second.compared)) == (28, 36)
    (place,) = third.third.components
    assert place.position.ratio == pytest.approx(0.0, abs=1e-6)
