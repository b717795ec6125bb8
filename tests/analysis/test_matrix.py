"""Distances of a set: known answers, what is equal, absent or not comparable, one reading, bounded memory, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.analysis.compare.alignment import align
from lib_toolkit.analysis.compare.pairs import compare
from lib_toolkit.analysis.compare.reading import BLOCK
from lib_toolkit.analysis.matrix import state
from lib_toolkit.analysis.matrix.sources import model_files, names_of
from lib_toolkit.analysis.matrix.sums import Sums
from lib_toolkit.analysis.matrix.sweep import Sweep, memory_bound
from lib_toolkit.analysis.matrix.tasks import work_of
from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.errors import CancelledError, UsageError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.reports.matrix_json import matrix_text
from tests.analysis.samples import demo, half, part, save

VAE = "first_stage_model."


@pytest.fixture(scope="module")
def vae():
    return part(demo(), VAE)


def moved(arrays, seed: int, size: float = 0.02):
    """Every weight moved by noise."""
    rng = np.random.default_rng(seed)
    return {key: a + (rng.standard_normal(a.shape) * size).astype("<f4") for key, a in arrays.items()}


def saved(folder: Path, **models) -> list[Path]:
    return [save(folder / f"{name}.safetensors", arrays) for name, arrays in models.items()]


def only(result):
    (component,) = result.components
    return component


def flat(arrays) -> np.ndarray:
    return np.concatenate([a.astype("<f8").ravel() for a in arrays.values()])


def test_models_on_a_line_are_as_far_apart_as_their_numbers(tmp_path, vae):
    step = 0.25
    # Multiples of 1/64, so that every shifted weight and every difference is exact.
    base = {key: np.round(a * 64).astype("<f4") / 64 for key, a in vae.items()}
    paths = [
        save(tmp_path / f"m{i}.safetensors", {k: a + np.float32(i * step) for k, a in base.items()}) for i in range(4)
    ]
    result = measure_set(paths)
    count = sum(a.size for a in base.values())
    gaps = np.abs(np.subtract.outer(range(4), range(4)))
    found = only(result)
    assert found.group.id == "vae"
    assert np.allclose(found.l2, gaps * step * math.sqrt(count), rtol=1e-7, atol=0)
    assert np.allclose(found.l1, gaps * step * count, rtol=1e-7, atol=0)
    assert np.allclose(found.mean, gaps * step, rtol=1e-7, atol=0)
    assert np.array_equal(found.changed, np.where(gaps > 0, count, 0))
    assert np.array_equal(found.l0, np.where(gaps > 0, len(base), 0))


def test_every_figure_equals_an_independent_one(tmp_path, vae):
    models = {"a": vae, "b": moved(vae, 1), "c": half(moved(vae, 2))}
    found = only(measure_set(saved(tmp_path, **models), workers=2))
    vectors = [flat(model) for model in models.values()]
    for i, x in enumerate(vectors):
        for j, y in enumerate(vectors):
            assert found.l2[i, j] == pytest.approx(np.linalg.norm(x - y), rel=1e-6)
            assert found.l1[i, j] == pytest.approx(np.abs(x - y).sum(), rel=1e-6)
            assert found.changed[i, j] == np.count_nonzero(x != y)
            assert found.cosine[i, j] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-9)
    others = [np.mean([y for j, y in enumerate(vectors) if j != i], axis=0) for i in range(3)]
    for i, x in enumerate(vectors):
        assert found.to_average[i] == pytest.approx(np.abs(x - others[i]).mean(), rel=1e-6)
        assert found.to_set[i] == pytest.approx(
            np.mean([np.abs(x - y).mean() for j, y in enumerate(vectors) if j != i])
        )


def test_it_agrees_with_the_comparison_of_two(tmp_path):
    arrays = demo()
    rng = np.random.default_rng(7)
    other = {
        k: a * rng.uniform(0.99, 1.01, a.shape).astype("<f4") if a.dtype.kind == "f" else a for k, a in arrays.items()
    }
    paths = saved(tmp_path, a=arrays, b=other)
    result = measure_set(paths)
    models = tuple(open_model(path) for path in paths)
    pair = compare(models, tuple(identify(model) for model in models))
    for model in models:
        model.close()
    groups = {group.component: group for group in pair.by_component()}
    for component in result.components:
        group = groups[component.group.id]
        assert component.l2[0, 1] == pytest.approx(group.measures.l2, rel=1e-9)
        assert component.l0[0, 1] == group.figure("l0")
        assert component.cosine[0, 1] == pytest.approx(group.measures.cosine, abs=1e-7)
    blocks = {group.name: group for group in pair.by_merge_block()}
    assert {block.group.id for block in result.blocks} == set(blocks)
    assert len(blocks) == 26
    for block in result.blocks:
        assert block.l2[0, 1] == pytest.approx(blocks[block.group.id].measures.l2, rel=1e-9)
    assert result.total.l1[0, 1] == pytest.approx(pair.total().measures.l1, rel=1e-9)


def test_three_models_at_one_two_and_three_are_two_away_on_average(tmp_path):
    rng = np.random.default_rng(0)
    lora = {
        f"lora_unet_down_blocks_{i}_attentions_0_proj_in.lora_{side}.weight": rng.integers(-9, 9, shape).astype("<f4")
        for i in range(3)
        for side, shape in (("down", (4, 320)), ("up", (320, 4)))
    }
    shifted = {f"b{i}": {key: a + np.float32(i) for key, a in lora.items()} for i in (1, 2, 3)}
    result = measure_set(saved(tmp_path, a=lora, **shifted))
    assert result.total.to_set[0] == 2.0
    assert result.total.to_average[0] == 2.0
    assert result.total.to_average[2] == pytest.approx(2 / 3)


def test_equal_absent_and_not_comparable_are_told_apart(tmp_path, vae):
    whole, narrow = demo(), {key: a[: max(1, len(a) // 2)] for key, a in vae.items()}
    without = {key: a for key, a in whole.items() if not key.startswith(VAE)}
    whole |= {VAE + key: a for key, a in vae.items()}
    paths = saved(tmp_path, whole=whole, without=without, bare=vae)
    result = measure_set([*paths, save(tmp_path / "narrow.safetensors", {VAE + k: a for k, a in narrow.items()})])
    found = result.component("vae")
    assert found.l2[0, 2] == 0 and found.cosine[0, 2] == 1
    assert math.isnan(found.l2[0, 1]) and math.isnan(found.cosine[1, 1])
    assert list(found.own > 0)[:3] == [True, False, True]
    assert found.identical == ((0, 2),)
    unet = result.component("unet")
    assert unet.l2[0, 1] == 0 and unet.identical == ((0, 1),)
    # A VAE of other shapes is either none to us, or one that has no distance, with the reason.
    assert not found.own[3] or ("shapes" in found.reasons[0][0] and (0, 3) in found.reasons[0][1])


def test_shapes_that_differ_have_a_reason_and_few_of_them_no_more_than_a_note(tmp_path, vae):
    one = dict(vae)
    key = next(key for key in one if key.endswith("conv_in.weight"))
    one[key] = np.concatenate([one[key], one[key]])
    wide = {key: np.concatenate([a, a]) for key, a in vae.items()}
    prefixed = [{f"x.{key}": a for key, a in model.items()} for model in (vae, one, wide)]
    found = only(measure_set(saved(tmp_path, a=prefixed[0], one=prefixed[1], wide=prefixed[2])))
    assert found.l2[0, 1] == 0 and not found.complete[0, 1] and found.compared[0, 1] == len(vae) - 1
    assert found.identical == ()
    assert math.isnan(found.l2[0, 2])
    ((why, pairs), *_) = [item for item in found.reasons if (0, 2) in item[1]]
    assert why == f"none of {len(vae):,} tensors fits: shapes or types differ" and (0, 2) in pairs


def test_names_and_layouts_do_not_matter(tmp_path):
    def light(arrays):
        return {key: a for key, a in arrays.items() if not key.startswith(VAE)}

    result = measure_set(saved(tmp_path, plain=light(demo()), nai=light(demo(nai=True))))
    assert result.component("text_encoder").identical == ((0, 1),)


def test_nan_is_counted_and_does_not_spread(tmp_path, vae):
    sick = {key: a.copy() for key, a in vae.items()}
    key = max(sick, key=lambda key: sick[key].size)
    sick[key].flat[[3, 70_000 % sick[key].size]] = np.nan
    sick[key].flat[5] = np.inf
    result = measure_set(saved(tmp_path, sick=sick, b=moved(vae, 1), c=vae))
    assert [(one.nan, one.infinite) for one in result.members] == [(2, 1), (0, 0), (0, 0)]
    found = only(result)
    assert np.isfinite(found.l2).all() and np.isfinite(found.to_average).all()
    assert found.l2[0, 2] == 0 and found.changed[0, 2] == 3
    assert found.identical == ()


def test_types_below_a_byte_and_wide_integers_are_exact(tmp_path):
    big = np.array([2**53, 2**53 + 2], dtype="<i8")
    raw = {"packed": ("F4", (4,), b"\x12\x34")}
    a = save(tmp_path / "a.safetensors", {"w": np.ones(2, "<f4"), "big": big}, more=raw)
    b = save(tmp_path / "b.safetensors", {"w": np.ones(2, "<f4"), "big": big + np.array([1, 0])}, more=raw)
    c = save(
        tmp_path / "c.safetensors", {"w": np.ones(2, "<f4"), "big": big}, more={"packed": ("F4", (4,), b"\x12\x35")}
    )
    found = only(measure_set([a, b, c]))
    assert found.changed[0, 1] == 1 and found.l0[0, 1] == 1
    assert found.compared[0, 1] == 3 and found.compared[0, 2] == 2
    assert not found.complete[0, 2]


def test_one_and_eight_workers_give_the_same_bits(tmp_path, vae):
    paths = saved(tmp_path, a=vae, b=moved(vae, 1), c=half(moved(vae, 2)), d=moved(vae, 3), e=vae)
    one, eight = measure_set(paths, workers=1), measure_set(paths, workers=8)
    for name in ("l0", "l1", "l2", "cosine", "mean", "to_average", "norm", "rounding"):
        assert getattr(only(one), name).tobytes() == getattr(only(eight), name).tobytes(), name


def test_every_byte_is_read_once(tmp_path, vae, monkeypatch):
    seen: dict[Path, list[tuple[int, int]]] = {}
    lock, read_at = threading.Lock(), SourceFile.read_at

    def noted(self, offset, out):
        with lock:
            seen.setdefault(self.path, []).append((offset, len(out)))
        read_at(self, offset, out)

    paths = saved(tmp_path, a=vae, b=moved(vae, 1), c=half(vae), d=vae)
    monkeypatch.setattr(SourceFile, "read_at", noted)
    measure_set(paths, workers=3)
    for path in paths:
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        ranges = sorted(one for one in seen[path] if one[0] >= start)
        ends = [offset + length for offset, length in ranges]
        assert [offset for offset, _ in ranges] == [start, *ends[:-1]]
        assert ends[-1] == path.stat().st_size


def peak_of_sweep(paths, workers: int) -> tuple[int, int]:
    """Bytes that the sweep alone allocated at most, and its bound."""
    models = [open_model(path) for path in paths]
    work = work_of(align(models, [identify(model) for model in models]))
    tracemalloc.start()
    try:
        sums = Sums.zeros(len(work.groups), len(models))
        Sweep(sums, {}, SILENT, workers, len(models)).run(work.tasks, 0, lambda done: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        for model in models:
            model.close()
    return peak, memory_bound(len(models), len(work.groups), workers)


@pytest.mark.parametrize("count", [3, 9])
def test_memory_does_not_grow_with_the_size_of_the_models(tmp_path, count):
    rng = np.random.default_rng(0)

    def files(name: str, rows: int) -> list[Path]:
        return [
            save(tmp_path / f"{name}{i}.safetensors", {"layer.weight": rng.standard_normal((rows, 512)).astype("<f4")})
            for i in range(count)
        ]

    small, bound = peak_of_sweep(files("small", 512), 2)
    large, _ = peak_of_sweep(files("large", 4096), 2)
    assert large <= bound
    assert large < count * 4096 * 512 * 4 / 2
    assert large <= small + (4 << 20)


@pytest.mark.parametrize("sick", [0.0, 0.1, 0.8])
def test_eight_workers_measure_six_models_in_less_memory_than_two_of_them(tmp_path, sick):
    rows, width = 12_288, 2048
    step = BLOCK // width
    paths = [save(tmp_path / "m0.safetensors", {"layer.weight": np.zeros((rows, width), "<f4")})]
    start, size = paths[0].stat().st_size - rows * width * 4, paths[0].stat().st_size
    header = paths[0].read_bytes()[:start]
    for place in range(6):
        rng = np.random.default_rng(place)
        path = tmp_path / f"m{place}.safetensors"
        with path.open("wb") as file:
            file.write(header)
            # Zeros that take no room on the disk, and values of its own in the first, a middle and the last block.
            file.truncate(size)
            for row in (0, rows // 2, rows - step):
                file.seek(start + row * width * 4)
                values = rng.standard_normal((step, width)).astype("<f4")
                if sick:
                    # With the larger share only some, so that the rest gains.
                    values[rng.random(values.shape) < (sick if sick < 0.5 or place % 2 else 0.1)] = np.nan
                file.write(values.tobytes())
        paths[place:] = [path]
    peak, bound = peak_of_sweep(paths, 8)
    assert bound < 2 * size
    assert peak <= bound


def test_a_broken_file_is_reported_and_the_rest_goes_on(tmp_path, vae):
    paths = saved(tmp_path, a=vae, b=moved(vae, 1))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00\xff" * 40)
    result = measure_set([paths[0], broken, tmp_path / "missing.ckpt", paths[1]])
    assert [one.name for one in result.members] == ["a.safetensors", "b.safetensors"]
    assert [one.name for one in result.failures] == ["broken.safetensors", "missing.ckpt"]
    assert "does not exist" in result.failures[1].reason
    assert only(result).l2[0, 1] > 0


def test_a_file_that_fails_while_it_is_read_is_left_out_of_every_figure(tmp_path, vae, monkeypatch):
    paths = saved(tmp_path, a=vae, bad=moved(vae, 1), c=moved(vae, 2))
    alone = measure_set([paths[0], paths[2]])
    read_at, count = SourceFile.read_at, [0]

    def failing(self, offset, out):
        if self.path == paths[1] and offset > 8:
            count[0] += 1
            if count[0] > 20:
                from lib_toolkit.errors import FormatError

                raise FormatError(f"{self.path} could not be read at byte {offset:,}: a bad sector.")
        read_at(self, offset, out)

    monkeypatch.setattr(SourceFile, "read_at", failing)
    result = measure_set(paths)
    assert [one.name for one in result.members] == ["a.safetensors", "c.safetensors"]
    assert "bad sector" in result.failures[0].reason
    assert np.array_equal(only(result).l2, only(alone).l2)


def cancelling(after: int) -> Progress:
    """Asks to stop after so many looks."""
    looks = iter(range(after))
    return Progress(None, lambda: next(looks, None) is None)


@pytest.mark.parametrize("workers", [1, 8])
def test_a_sweep_that_is_cancelled_again_and_again_ends_with_the_same_bits(tmp_path, vae, workers):
    out = tmp_path / "out"
    out.mkdir()
    sick, ridden = moved(vae, 3), moved(vae, 4)
    for place, key in enumerate(sick):
        if place % 2 == 0:
            sick[key].flat[::7] = np.nan
        if place % 5:
            ridden[key].flat[1:] = np.inf
    rng = np.random.default_rng(9)
    models = {"a": vae, "b": moved(vae, 1), "c": half(moved(vae, 2)), "sick": sick, "copy": vae, "ridden": ridden}
    # One tensor of several blocks, which eight workers share.
    large = {name: rng.standard_normal((900, 1000)).astype("<f4") for name in models}
    paths = saved(tmp_path, **{name: {**model, "decoder.large": large[name]} for name, model in models.items()})
    straight = measure_set(paths, workers=1)
    kept = []
    for after in (300, 400, 500):
        with pytest.raises(CancelledError, match="goes on from there"):
            measure_set(paths, cancelling(after), workers, out)
        with np.load(out / state.NAME) as archive:
            kept.append(json.loads(archive["head"].tobytes())["done"])
    assert 0 < kept[0] < kept[1] < kept[2]
    resumed = measure_set(paths, SILENT, workers, out)
    assert matrix_text(resumed) == matrix_text(straight)
    for one, other in zip((resumed.total, *resumed.components), (straight.total, *straight.components), strict=True):
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            if isinstance(value, np.ndarray):
                assert value.tobytes() == getattr(other, field.name).tobytes(), field.name
            else:
                assert value == getattr(other, field.name), field.name


def test_a_cancelled_sweep_is_taken_up_again_to_the_same_bits(tmp_path, vae, monkeypatch):
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    out.mkdir()
    paths = saved(models, a=vae, b=moved(vae, 1), c=half(vae))
    straight = only(measure_set(paths))
    with pytest.raises(CancelledError, match="goes on from there"):
        measure_set(paths, cancelling(400), 1, out)
    assert [path.name for path in out.iterdir()] == [state.NAME]
    read: list[int] = []
    read_at = SourceFile.read_at
    monkeypatch.setattr(SourceFile, "read_at", lambda self, at, to: (read.append(len(to)), read_at(self, at, to))[1])
    resumed = only(measure_set(paths, SILENT, 2, out))
    assert 0 < sum(read) < 0.95 * sum(path.stat().st_size for path in paths)
    for name in ("l0", "l1", "l2", "cosine", "to_average"):
        assert getattr(straight, name).tobytes() == getattr(resumed, name).tobytes()
    # Everything is done: nothing but headers is read again. Then a file changes.
    read.clear()
    measure_set(paths, SILENT, 1, out)
    assert sum(read) < 100_000
    save(paths[1], moved(vae, 5))
    assert only(measure_set(paths, SILENT, 1, out)).l2[0, 1] != straight.l2[0, 1]


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_damaged_state_is_ignored(tmp_path, vae, junk):
    paths = saved(tmp_path, a=vae, b=moved(vae, 1))
    out = tmp_path / "out"
    out.mkdir()
    (out / state.NAME).write_bytes(junk)
    assert only(measure_set(paths, SILENT, 1, out)).l2[0, 1] > 0


def test_folders_are_listed_by_name_and_doubles_count_once(tmp_path, vae):
    for name in ("b.safetensors", "A.ckpt", "c.txt", "sub/b.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    files = model_files([tmp_path, tmp_path / "b.safetensors", tmp_path / "sub"])
    assert [path.name for path in files] == ["A.ckpt", "b.safetensors", "b.safetensors"]
    assert names_of(files) == ("A.ckpt", f"{tmp_path.name}/b.safetensors", "sub/b.safetensors")


def test_fewer_than_two_models_are_wrong_use(tmp_path, vae):
    (path,) = saved(tmp_path, a=vae)
    with pytest.raises(UsageError, match="two models or more"):
        measure_set([path])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no model in the folder"):
        measure_set([empty])


def test_pickles_are_read_like_the_rest(tmp_path, vae):
    torch = pytest.importorskip("torch")
    path = tmp_path / "turned.ckpt"
    # A transposed view cannot be read by ranges.
    tensors = {key: torch.from_numpy(a.copy()) for key, a in vae.items()}
    key = next(key for key, a in vae.items() if a.ndim == 4 and min(a.shape[:2]) > 1)
    tensors[key] = tensors[key].transpose(0, 1).contiguous().transpose(0, 1)
    torch.save({"state_dict": tensors}, path)
    found = only(measure_set([*saved(tmp_path, a=vae, b=moved(vae, 1)), path]))
    assert found.identical == ((0, 2),)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    result = measure_set([*saved(tmp_path, a=vae, b=moved(vae, 1)), path])
    assert "damaged" in result.failures[0].reason
