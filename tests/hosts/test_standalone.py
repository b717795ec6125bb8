"""The standalone host: what is listed, how entries are told apart, and what it refuses."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib_toolkit import hosts
from lib_toolkit.errors import UsageError
from lib_toolkit.hosts import StandaloneHost
from lib_toolkit.hosts.host import LOCAL_VISITOR
from lib_toolkit.hosts.listing import without_places


def put(root, *names, size=1500):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def names(host, kind=None):
    return [entry.name for entry in host.models(kind)]


def test_lists_the_known_folders_sub_folders_and_the_top(tmp_path):
    put(
        tmp_path,
        "top.safetensors",
        "Stable-diffusion/a.ckpt",
        "Stable-diffusion/sub/deep/b.st",
        "VAE/v.pt",
        "Lora/l.sft",
        "ControlNet/c.pth",
        "Components/u.bin",
        "Autoprune/d.SAFETENSORS",
        "ESRGAN/not-ours.pth",
        "Stable-diffusion/readme.txt",
        "Stable-diffusion/a.preview.png",
        "Stable-diffusion/.model-toolkit-0-1-2.safetensors",
    )
    host = StandaloneHost(tmp_path)
    assert set(names(host)) == {
        "top.safetensors",
        "Stable-diffusion/a.ckpt",
        "Stable-diffusion/sub/deep/b.st",
        "VAE/v.pt",
        "Lora/l.sft",
        "ControlNet/c.pth",
        "Components/u.bin",
        "Autoprune/d.SAFETENSORS",
    }
    assert names(host, "vae") == ["VAE/v.pt"]
    assert [entry.kind for entry in host.models("lora")] == ["lora"]


def test_labels_show_the_size_and_lead_back(tmp_path):
    put(tmp_path, "Stable-diffusion/a.ckpt", size=2_132_000)
    host = StandaloneHost(tmp_path)
    (entry,) = host.models()
    assert entry.label == "Stable-diffusion/a.ckpt · 2.13 MB"
    assert entry.size == 2_132_000
    for value in (entry.label, entry.name, "Stable-diffusion/a.ckpt · 9.99 GB"):
        assert host.find(value).path == (tmp_path / "Stable-diffusion/a.ckpt").resolve()


def test_two_files_with_one_name_are_both_selectable(tmp_path):
    put(tmp_path, "Stable-diffusion/one/model.ckpt", "Stable-diffusion/two/model.ckpt", "model.ckpt")
    host = StandaloneHost(tmp_path)
    labels = [entry.label for entry in host.models()]
    assert len(set(labels)) == 3
    assert {host.find(label).path.parent.name for label in labels} == {"one", "two", tmp_path.name}


def test_a_bare_name_stands_for_the_only_file_that_has_it(tmp_path):
    put(tmp_path, "VAE/one.pt", "Stable-diffusion/one/model.ckpt", "Stable-diffusion/two/model.ckpt")
    host = StandaloneHost(tmp_path)
    assert host.find("one.pt").name == "VAE/one.pt"
    with pytest.raises(UsageError, match="stands for 2 models"):
        host.find("model.ckpt")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_names_that_look_alike_when_escaped_stay_apart(tmp_path):
    put(tmp_path, "VAE/a\nb.pt", "VAE/a\\x0ab.pt")
    host = StandaloneHost(tmp_path)
    entries = host.models()
    assert len({entry.label for entry in entries}) == 2
    assert all(entry.label.isprintable() for entry in entries)
    assert {host.find(entry.label).path.name for entry in entries} == {"a\nb.pt", "a\\x0ab.pt"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    (tmp_path / "VAE").mkdir()
    try:
        (tmp_path / "VAE" / os.fsdecode(b"\xff.pt")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (entry,) = StandaloneHost(tmp_path).models()
    json.dumps(entry.label).encode()
    assert entry.label.encode().startswith(b"VAE/\\udcff.pt")


@pytest.mark.parametrize(
    "forged",
    [
        "/etc/passwd",
        "../outside.ckpt",
        "Stable-diffusion/../../outside.ckpt",
        "Stable-diffusion/readme.txt",
        "outside.ckpt · 1.50 kB",
        "Stable-diffusion",
        "Stable-diffusion/a",
        " · ",
        "x" * 100_000,
        "\x00",
    ],
)
def test_forged_values_are_refused_in_one_sentence(tmp_path, forged):
    put(tmp_path, "outside.ckpt", "models/Stable-diffusion/a.ckpt", "models/Stable-diffusion/readme.txt")
    host = StandaloneHost(tmp_path / "models")
    with pytest.raises(UsageError) as caught:
        host.find(forged)
    assert "refresh the list" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_nothing_chosen_has_its_own_sentence(tmp_path):
    with pytest.raises(UsageError, match="No model is chosen"):
        StandaloneHost(tmp_path).find("")


def test_a_file_that_went_away_is_no_longer_found(tmp_path):
    put(tmp_path, "VAE/v.pt")
    host = StandaloneHost(tmp_path)
    (entry,) = host.models()
    entry.path.unlink()
    with pytest.raises(UsageError, match="moved, renamed"):
        host.find(entry.label)
    assert host.models() == ()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    put(tmp_path, "elsewhere/big.safetensors", "models/Stable-diffusion/a.ckpt")
    checkpoints = tmp_path / "models/Stable-diffusion"
    (checkpoints / "other-disk").symlink_to(tmp_path / "elsewhere")
    (checkpoints / "loop").symlink_to(checkpoints)
    (checkpoints / "gone.ckpt").symlink_to(tmp_path / "nothing")
    found = names(StandaloneHost(tmp_path / "models"))
    assert found == ["Stable-diffusion/a.ckpt", "Stable-diffusion/other-disk/big.safetensors"]


def test_output_folders_by_kind(tmp_path):
    host = StandaloneHost(tmp_path)
    folders = {kind: host.output_folder(kind).name for kind in ("checkpoint", "vae", "lora", "controlnet", "component")}
    assert folders == {
        "checkpoint": "Stable-diffusion",
        "vae": "VAE",
        "lora": "Lora",
        "controlnet": "ControlNet",
        "component": "Components",
    }
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="not a kind"):
        host.output_folder("../..")


def test_settings_come_from_the_models_folder(tmp_path):
    settings = {"precision": "bf16", "fix_clip": True, "may_write": False, "may_read": 1}
    (tmp_path / ".model-toolkit.json").write_text(json.dumps(settings))
    host = StandaloneHost(tmp_path)
    assert host.setting("precision", "auto") == "bf16"
    assert host.setting("fix_clip", False) is True
    assert host.setting("may_read", True) is True, "a value of another type is not used"
    assert host.setting("unheard", "of") == "of"
    assert "switched off" in host.write_refusal(LOCAL_VISITOR)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_broken_settings_are_said_at_the_start(tmp_path, text):
    (tmp_path / ".model-toolkit.json").write_text(text)
    with pytest.raises(UsageError, match=r"model-toolkit\.json"):
        StandaloneHost(tmp_path)


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("sources", "kep", "choose done, keep, delete"),
        ("vae_format", 5, "choose pt, safetensors"),
        ("autoprune", "true", "choose true or false"),
        ("workers", -3, "choose 0 to 32"),
    ],
)
def test_a_mistyped_setting_is_not_taken_for_the_default(tmp_path, key, value, told):
    (tmp_path / ".model-toolkit.json").write_text(json.dumps({key: value}))
    with pytest.raises(UsageError, match=f"{key}: .*{told}"):
        StandaloneHost(tmp_path)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        hosts.detect(tmp_path / "nowhere")


def test_detection_imports_no_webui():
    code = (
        "import sys, pathlib; from lib_toolkit import hosts; host = hosts.detect(pathlib.Path('.'));"
        "print(host.name, 'modules' in sys.modules, 'gradio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["standalone", "False", "False"]


def test_texts_for_pages_do_not_say_where_folders_lie(tmp_path):
    root = tmp_path / "it's & here"
    root.mkdir()
    host = StandaloneHost(root)
    path = root / "VAE" / "a.pt"
    for written in (str(path), html.escape(str(path))):
        assert host.private(f"Saved {written}.") == "Saved VAE/a.pt."
    assert host.private(f"not in {root}") == "not in it's & here"
    assert host.private("1/2 of /it") == "1/2 of /it"


@pytest.mark.skipif(os.name == "nt", reason="paths of Unix")
def test_only_whole_paths_are_shortened():
    shown = {Path("/data"): "data", Path("/data/models/VAE"): "VAE"}
    for text, said in {
        "/data/models/VAE/a.pt": "VAE/a.pt",
        "/data/models/VAE2/a.pt": "data/models/VAE2/a.pt",
        "<b>/data/x</b>": "<b>data/x</b>",
        "the checksum of archive/data/490": "the checksum of archive/data/490",
        "/data2/x, /database": "/data2/x, /database",
    }.items():
        assert without_places(text, shown) == said
