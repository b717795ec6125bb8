"""The metric against slow arithmetic of its own: one element after another, in the words of its definition."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.analysis.metric import KNOWN, SCALES, known_name, metric, total
from lib_toolkit.analysis.results import Metric
from lib_toolkit.architectures.registry import architecture, component
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from tests.analysis.samples import demo, half, part, save
from tests.making import stamp_positions, stamp_value, stamped_safetensors

VAE_BASE, UNET_BASE, CLIP_V1_BASE, CLIP_V2_BASE = 17870.7051, -6131.5400, -2097.8596, -8757.5630
VAE, CLIP, UNET = "first_stage_model.", "cond_stage_model.transformer.", "model.diffusion_model."


def term(value: float) -> float:
    """sigmoid of the value at FP16, at FP32, less a half."""
    x = float(np.float16(np.float32(value)))
    sigmoid = 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
    return float(np.float32(sigmoid)) - 0.5


def slow_sum(arrays) -> float:
    cache: dict[float, float] = {}
    for array in arrays:
        with np.errstate(over="ignore"):
            found, counts = np.unique(array.astype("<f2").ravel(), return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            cache[value] = cache.get(value, 0) + count
    return math.fsum(term(value) * count for value, count in cache.items())


def slow_figure(arrays, base: float, factor: int) -> int:
    n = math.floor(abs(slow_sum(arrays) / base - 1) * factor)
    while n >= 10000:
        n -= 5000
    return n


def slow_metric(arrays) -> tuple[int, int, int]:
    """By the definition's own words about keys."""
    unet = [a for k, a in arrays.items() if k.startswith(UNET)]
    vae = [a for k, a in arrays.items() if k.startswith(VAE) and ("encoder." in k or "decoder." in k)]
    clip = [a for k, a in arrays.items() if k.startswith("cond_stage_model.") and "mlp." in k and ".23." not in k]
    return (
        slow_figure(unet, UNET_BASE, 10_000),
        slow_figure(vae, VAE_BASE, 10_000),
        slow_figure(clip, CLIP_V1_BASE, 1_000_000),
    )


@cache
def demo_metric() -> tuple[int, int, int]:
    """That of ``demo()``."""
    return slow_metric(demo())


def measure(path: Path) -> Metric:
    with open_model(path) as model:
        return metric(model, identify(model))


def figures(found: Metric) -> tuple[int | None, int | None, int | None]:
    return found.unet, found.vae, found.clip


@pytest.mark.parametrize("nai", [False, True], ids=["standard", "nai"])
@pytest.mark.parametrize("cast", [lambda a: a, half], ids=["fp32", "fp16"])
def test_figures_equal_slow_arithmetic(tmp_path, nai, cast):
    arrays = demo(nai=nai)
    expected = demo_metric()
    assert len(set(expected)) == 3 and 0 not in expected
    assert figures(measure(save(tmp_path / "m.safetensors", cast(arrays)))) == expected


def test_each_step_is_as_defined():
    """The terms of all patterns at once, against one by one; -0 counts as 0, infinities as a half."""
    patterns = np.arange(65536, dtype=np.uint16)
    values = patterns.view("<f2")
    for pattern in (*range(0, 0x7C00, 97), 0x7C00, *range(0x8000, 0xFC00, 89), 0xFC00):
        histogram = np.zeros(65536, np.int64)
        histogram[pattern] = 3
        value = float(values[pattern])
        expected = 3 * (term(value) if math.isfinite(value) else math.copysign(0.5, value))
        assert total(histogram) == pytest.approx(expected, rel=1e-12, abs=1e-300), hex(pattern)


def test_sum_is_exact_in_any_order():
    """Large terms of both signs nearly cancel; a running sum would keep little of the small one."""
    histogram = np.zeros(65536, np.int64)
    for value, count in ((8.0, 10**12), (-8.0, 10**12), (0.25, 1)):
        histogram[int(np.array(value, "<f2").view("<u2"))] = count
    up, down = term(8.0), term(-8.0)
    assert total(histogram) == math.fsum([1e12 * up, 1e12 * down, term(0.25)])


@pytest.mark.parametrize("prefix", [UNET, VAE, CLIP])
def test_bare_components_have_the_figure_of_the_whole(tmp_path, prefix):
    arrays = demo()
    whole = demo_metric()
    alone = measure(save(tmp_path / "part.safetensors", part(arrays, prefix)))
    index = [UNET, VAE, CLIP].index(prefix)
    assert figures(alone)[index] == whole[index]
    assert [n for i, n in enumerate(figures(alone)) if i != index] == [None, None]


def test_missing_component_is_a_dash(tmp_path):
    arrays = {key: a for key, a in demo().items() if not key.startswith(VAE)}
    found = measure(save(tmp_path / "m.safetensors", arrays))
    unet, _, clip = demo_metric()
    assert found.text == f"{unet:04d}/----/{clip:04d}"


def test_incomplete_component_has_no_figure(tmp_path):
    arrays = demo()
    del arrays[VAE + "decoder.conv_in.weight"]
    assert measure(save(tmp_path / "m.safetensors", arrays)).vae is None


def test_ema_copy_does_not_count(tmp_path):
    arrays = demo()
    ema = {"model_ema." + k[len("model.") :].replace(".", ""): a + 1 for k, a in arrays.items() if k.startswith(UNET)}
    assert figures(measure(save(tmp_path / "m.safetensors", {**arrays, **ema}))) == demo_metric()


def test_nan_leaves_no_figure(tmp_path):
    arrays = demo()
    arrays[UNET + "out.2.bias"][0] = np.nan
    unet, vae, clip = figures(measure(save(tmp_path / "m.safetensors", arrays)))
    assert unet is None
    assert (vae, clip) == demo_metric()[1:]


def test_sdxl_has_a_vae_figure_only(tmp_path):
    arrays = demo("sdxl-demo")
    vae = slow_metric(arrays)[1]
    assert figures(measure(save(tmp_path / "m.safetensors", arrays))) == (None, vae, None)


def test_bf16_is_rounded_to_fp16(tmp_path):
    """BF16 values are FP32 values with short mantissas; their figure is that of the same values at FP32."""
    arrays = {k: (a.view("<u4") & 0xFFFF0000).view("<f4") if a.dtype.kind == "f" else a for k, a in demo().items()}
    stored = {
        k: ("BF16", a.shape, (a.view("<u4") >> 16).astype("<u2").tobytes())
        for k, a in arrays.items()
        if a.dtype.kind == "f"
    }
    ids = {k: a for k, a in arrays.items() if a.dtype.kind == "i"}
    assert figures(measure(save(tmp_path / "m.safetensors", ids, more=stored))) == slow_metric(arrays)


def test_plain_fp8_counts_as_its_values(tmp_path):
    """1.5 at E4M3 is 0x3c; a scaled file's numbers are not the weights."""
    table = component("VAE-v1-Demo").family.table()
    stored = {k: ("F8_E4M3", s, bytes([0x3C]) * math.prod(s)) for k, s in table.items()}
    count = sum(math.prod(s) for k, s in table.items() if "coder." in k)
    expected = slow_figure([np.full(count, 1.5, "<f4")], VAE_BASE, 10_000)
    assert measure(save(tmp_path / "a.safetensors", {}, more=stored)).vae == expected
    stored["decoder.conv_in.scale_weight"] = ("F32", (), np.float32(2).tobytes())
    assert measure(save(tmp_path / "b.safetensors", {}, more=stored)).vae is None


def test_sd2_at_full_size(tmp_path):
    """Real names and shapes; only the stamps are not zero. The 24th layer of the text encoder does not count."""
    table = architecture("sd2").table()
    path = tmp_path / "sd2.safetensors"
    stamped_safetensors(path, {key: ("F16", shape) for key, shape in table.items()})

    def stamps(keys):
        return [np.array([stamp_value(k, p) for p in stamp_positions(math.prod(table[k]))], "<f4") for k in keys]

    unet = stamps(k for k in table if k.startswith(UNET))
    vae = stamps(k for k in table if k.startswith(VAE + "encoder.") or k.startswith(VAE + "decoder."))
    layers = [k for k in table if k.startswith("cond_stage_model.model.") and ".mlp.c_" in k]
    clip = stamps(k for k in layers if "resblocks.23." not in k)
    assert slow_sum(clip) != slow_sum(stamps(layers))
    expected = tuple(
        slow_figure(a, base, 10_000) for a, base in ((unet, UNET_BASE), (vae, VAE_BASE), (clip, CLIP_V2_BASE))
    )
    assert figures(measure(path)) == expected
    path.unlink()


def test_known_figure_is_said_in_words(tmp_path):
    """A VAE of real shapes whose sum is that of NAI's: all zero but for one large tensor."""
    table = component("VAE-v1-SD").family.table()
    big = "decoder.mid.block_1.conv1.weight"
    size = math.prod(table[big])
    wanted = VAE_BASE * 1.29825
    level = np.float16(math.log((0.5 + wanted / size) / (0.5 - wanted / size)))
    values = np.full(size, level)
    # What the rounding of the level left over goes into a few elements of another value.
    rest = wanted - slow_sum([values])
    values[: round(rest / (term(4.0) - term(float(level))))] = 4.0 if rest > 0 else level
    path = tmp_path / "vae.safetensors"
    header, position = {}, 0
    for key, shape in table.items():
        end = position + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)
        file.seek(8 + len(raw) + header[big]["data_offsets"][0])
        file.write(values.tobytes())
    found = measure(path)
    assert found.vae == slow_figure([values], VAE_BASE, 10_000)
    assert abs(found.vae - 2982) <= 1
    assert found.known == (f"The VAE has the figure of the NAI VAE ({found.vae:04d}).",)
    path.unlink()


@pytest.mark.parametrize(
    ("cls", "number", "name"),
    [
        ("VAE-v1", 0, "SD-v1"),
        ("VAE-v1", 1, "SD-v1"),
        ("VAE-v1", 2, None),
        ("VAE-v1", 868, "SD-v2"),
        ("VAE-v1", 2983, "NAI"),
        ("VAE-v1", 2984, None),
        ("VAE-v1", 155, "WD-VAE-v1"),
        ("VAE-v1", 41, "WD-VAE-v2"),
        ("CLIP-v1", 0, "SD-v1"),
        ("CLIP-v1", 2982, None),
        ("CLIP-v2", 1141, "SD-v2"),
        ("CLIP-v2", 2544, "WD-v1-4"),
        ("VAE-v1-Demo", 0, None),
    ],
)
def test_known_figures_match_within_one(cls, number, name):
    assert known_name(cls, number) == name


def test_known_classes_have_scales():
    assert KNOWN.keys() <= SCALES.keys()
