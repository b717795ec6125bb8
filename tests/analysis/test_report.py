"""The whole report: hashes by hand, each byte read once, the same for any number of workers, little memory, cancel."""

from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib_toolkit.analysis.names import give_name
from lib_toolkit.analysis.report import analyse
from lib_toolkit.cli.main import main
from lib_toolkit.errors import CancelledError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.plan import PROVENANCE
from lib_toolkit.progress import Progress
from lib_toolkit.reports.report_markdown import report_text
from lib_toolkit.sweep import BUFFERS, CHUNK
from tests.analysis.samples import demo, half, part, save
from tests.making import read_header

VAE, UNET = "first_stage_model.", "model.diffusion_model."


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_TOOLKIT_CONFIG", str(tmp_path / "settings"))


def report(path, **options):
    with open_model(path) as model:
        return analyse(model, identify(model), **options)


def facts(found):
    """All that a report says, apart from the model itself."""
    return replace(found, model=None)


def with_ema(arrays, shift=0.0):
    ema = {
        "model_ema." + k[len("model.") :].replace(".", ""): a + np.float32(shift)
        for k, a in arrays.items()
        if k.startswith(UNET)
    }
    return {**arrays, **ema}


def test_hashes_are_those_of_the_bytes(tmp_path):
    path = save(tmp_path / "m.safetensors", half(demo()))
    data = path.read_bytes()
    start = read_header(path)[1]
    found = report(path).hashes
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.autov2 == found.sha256[:10]
    assert found.autov3 == hashlib.sha256(data[start:]).hexdigest()[:12]
    assert found.legacy == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


def test_stated_hashes_are_compared(tmp_path):
    arrays = half(part(demo(), VAE))
    path = save(tmp_path / "m.safetensors", arrays, {"a": "b"})
    data = hashlib.sha256(path.read_bytes()[read_header(path)[1] :]).hexdigest()
    history = json.dumps([{"tool": "model-toolkit", "source": {"name": "x", "sha256": "ab" * 32, "legacy": " " * 8}}])
    stated = {"modelspec.hash_sha256": "0x" + data.upper(), "sshs_model_hash": "0" * 64, "sshs_legacy_hash": "12345678"}
    found = report(save(path, arrays, {**stated, PROVENANCE: history}))
    assert found.embedded == {
        "modelspec.hash_sha256": (stated["modelspec.hash_sha256"], True),
        "sshs_model_hash": ("0" * 64, False),
        "sshs_legacy_hash": ("12345678", None),
        f"{PROVENANCE}[0].source.sha256": ("ab" * 32, None),
    }
    (wrong,) = [finding for finding in found.findings if finding.id == "hash-disagrees"]
    assert "sshs_model_hash" in wrong.sentence and data[:16] in wrong.sentence
    assert "0" * 18 + "…, but" in wrong.sentence
    short = report(save(path, arrays, {"sshs_model_hash": "zz"}))
    (wrong,) = [finding for finding in short.findings if finding.id == "hash-disagrees"]
    assert " is zz, but" in wrong.sentence
    assert "Entries: sshs" in report_text(short).replace("\\", "")


def test_hash_of_sd_scripts_is_right_in_its_own_files(tmp_path):
    """Written as sd-scripts does: the hash of the file with fewer metadata, then saved with more."""
    from safetensors.torch import save as safetensors_save
    from safetensors.torch import save_file

    tensors = {"lora_unet_x.lora_down.weight": torch.ones(4, 8), "lora_unet_x.lora_up.weight": torch.zeros(8, 4)}
    first = safetensors_save(tensors, {"ss_network_dim": "4"})
    model_hash = hashlib.sha256(first[8 + int.from_bytes(first[:8], "little") :]).hexdigest()
    save_file(tensors, tmp_path / "l.safetensors", {"ss_network_dim": "4", "sshs_model_hash": model_hash, "x": "y"})
    assert report(tmp_path / "l.safetensors").embedded["sshs_model_hash"] == (model_hash, True)


@pytest.mark.parametrize("name", ["m.safetensors", "m.ckpt"])
def test_each_byte_is_read_once(tmp_path, name):
    """The header too, which the hashes cover; broken position ids do not make it twice."""
    arrays = demo()
    key = next(k for k in arrays if k.endswith("position_ids"))
    arrays[key] = arrays[key].astype("<f4") * np.float32(0.99)
    if name.endswith("ckpt"):
        torch.save({k: torch.from_numpy(a) for k, a in arrays.items()}, tmp_path / name)
    else:
        save(tmp_path / name, arrays)
    reads = []
    with open_model(tmp_path / name) as model:
        found = identify(model)
        model.origin.file.observer = lambda offset, data: reads.append((offset, offset + len(data)))
        result = analyse(model, found)
        size = model.origin.size
    assert "position-ids" in {finding.id for finding in result.findings}
    position = 0
    for begin, end in sorted(reads):
        assert begin == position
        position = end
    assert position == size


def test_metric_reads_only_what_it_needs(tmp_path):
    from lib_toolkit.analysis.metric import metric, tensors_of

    path = save(tmp_path / "m.safetensors", demo())
    reads = []
    with open_model(path) as model:
        found = identify(model)
        model.origin.file.observer = lambda offset, data: reads.append((offset, offset + len(data)))
        metric(model, found)
        kinds = {"unet": "unet", "vae": "vae", "text_encoder": "clip"}
        keys = [k for m in found.components for k in tensors_of(kinds[m.component.kind], m)]
        wanted = sum(math.prod(model.tensors[k].shape) * 4 for k in keys)
    assert sum(end - begin for begin, end in reads) == wanted < path.stat().st_size


def test_any_number_of_workers_gives_the_same(tmp_path):
    path = save(tmp_path / "m.safetensors", with_ema(demo(), 0.3))
    one = facts(report(path, workers=1))
    assert one.metric.unet is not None and one.findings
    for workers in (2, 8):
        other = facts(report(path, workers=workers))
        assert other == one
        assert list(other.health) == list(one.health)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Peak of what is allocated, for 24 MiB and for 96 MiB of one large tensor each."""

    def peak(count: int) -> int:
        path = tmp_path / "m.safetensors"
        header = json.dumps({"big": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 4 * count)
        tracemalloc.start()
        try:
            report(path, workers=2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1 << 20)
    small, large = peak(6 << 20), peak(24 << 20)
    # Not every run fills all of the buffers that there may be.
    assert large < small + CHUNK * BUFFERS
    assert large < 32 << 20


def test_cancel_leaves_nothing_running(tmp_path):
    import threading

    path = save(tmp_path / "m.safetensors", demo())
    seen, before = [], set(threading.enumerate())
    progress = Progress(lambda status: seen.append(status), cancelled=lambda: len(seen) >= 1)
    with pytest.raises(CancelledError):
        report(path, progress=progress, workers=3)
    assert set(threading.enumerate()) <= before


def test_progress_counts_all_bytes(tmp_path):
    path = save(tmp_path / "m.safetensors", demo())
    seen = []
    report(path, progress=Progress(seen.append))
    assert (seen[-1].done, seen[-1].total) == (path.stat().st_size,) * 2


def test_quick_reads_no_tensor(tmp_path):
    path = save(tmp_path / "m.safetensors", demo(), {"sshs_model_hash": "00"})
    reads = []
    with open_model(path) as model:
        model.origin.file.observer = lambda *read: reads.append(read)
        found = analyse(model, identify(model), quick=True)
    assert not reads
    assert found.quick and found.metric is None and found.hashes is None and not found.fingerprints
    assert found.embedded == {"sshs_model_hash": ("00", None)}
    assert {finding.id for finding in found.findings} == {"saving-precision"}


def test_packed_checkpoint_says_the_same(tmp_path):
    """Deflated entries are unpacked one at a time; values, figures and health are those of the plain file."""
    arrays = demo()
    torch.save({k: torch.from_numpy(a) for k, a in arrays.items()}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    one, other = report(tmp_path / "plain.ckpt"), report(tmp_path / "packed.ckpt")
    assert other.metric == one.metric
    assert other.fingerprints == one.fingerprints
    assert other.file_fingerprint == one.file_fingerprint
    assert other.health == one.health
    assert other.hashes.sha256 == hashlib.sha256((tmp_path / "packed.ckpt").read_bytes()).hexdigest()
    assert other.hashes.autov3 is None


def test_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "m.ckpt"
    torch.save({k: torch.from_numpy(a) for k, a in part(demo(), VAE).items()}, path)
    assert "damaged" not in {finding.id for finding in report(path).findings}
    with open_model(path) as model:
        offset = model.tensors["decoder.conv_out.weight"].offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    (finding,) = [finding for finding in report(path).findings if finding.id == "damaged"]
    assert finding.severity.value == "error" and "data/" in finding.keys[0]


def test_names_appear_in_every_report(tmp_path):
    path = save(tmp_path / "m.safetensors", demo())
    vae = next(one for one in report(path).fingerprints if one.cls == "VAE-v1-Demo")
    assert vae.names == ()
    give_name(vae.value, "Demo VAE")
    alone = save(tmp_path / "v.safetensors", half(part(demo(), VAE)))
    assert [one.names for one in report(alone).fingerprints] == [("Demo VAE",)]
    assert report(alone, names={}).fingerprints[0].names == ()
    (tmp_path / "settings" / "fingerprints.json").write_text("not JSON")
    damaged = report(alone)
    assert damaged.fingerprints[0].names == () and "names-unreadable" in {f.id for f in damaged.findings}


def test_demo_models_have_the_findings_that_they_were_made_for(tmp_path):
    assert main(["demo", str(tmp_path / "d")]) == 0
    (tmp_path / "d/Stable-diffusion/sd-v1-full-size-zeros.safetensors").unlink(missing_ok=True)
    found = {}
    for path in (*(tmp_path / "d").rglob("*.safetensors"), *(tmp_path / "d").rglob("*.ckpt")):
        result = report(path)
        found[path.name] = {finding.id for finding in result.findings}
    assert found == {
        "sd-demo.safetensors": set(),
        "sd-demo-bloated.ckpt": {"saving-ema", "saving-precision"},
        "sd-demo-broken-ids.safetensors": {"position-ids", "saving-precision"},
        "sd-demo-wrong-vae.safetensors": {"vae-merged"},
        "sd-demo-no-clip.safetensors": {"no-text-encoder"},
        "sd-demo-nai.ckpt": {"nai-names", "saving-precision"},
        "sdxl-demo-vpred.safetensors": {"v-pred"},
        "demo.vae.safetensors": {"saving-precision"},
        "sd1-demo-lora.safetensors": set(),
        "sd-demo-download.ckpt": {"saving-ema", "saving-precision"},
    }
