"""The WebUI as a host, in every flavour: folders, listing, what is refused, settings, lists, loaded models."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib_toolkit import hosts
from lib_toolkit.errors import UsageError
from lib_toolkit.hosts import StandaloneHost, WebuiHost
from lib_toolkit.hosts.host import KINDS
from lib_toolkit.hosts.settings import SETTINGS
from tests.fakehost.flavours import FLAVOURS
from tests.fakehost.models import CheckpointInfo, network_on_disk

EVERY = pytest.mark.parametrize("flavour", FLAVOURS)
TWO_KINDS = pytest.mark.parametrize("flavour", ["a1111", "forge"])
DUMMY = type("gradio", (), {"Radio": "radio", "Slider": "slider"})


def put(root, *names, size=1500):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def names(host, kind=None):
    return [entry.name for entry in host.models(kind)]


def below(host, kind, base):
    return [folder.relative_to(base).as_posix() for folder in host.folders(kind)]


@EVERY
def test_a_webui_that_has_loaded_itself_is_found(flavour, plant, tmp_path):
    assert isinstance(hosts.detect(tmp_path), StandaloneHost)
    plant(flavour)
    assert hosts.detect(tmp_path).name == "WebUI"
    assert isinstance(hosts.detect(), WebuiHost)


def test_outside_of_a_webui_a_folder_must_be_named():
    with pytest.raises(UsageError, match="models folder"):
        hosts.detect()


@EVERY
def test_the_usual_folders_lie_in_the_data_folder_and_not_in_the_working_directory(flavour, plant, tmp_path):
    _, host = plant(flavour)
    usual = {kind: below(host, kind, tmp_path / "data") for kind in KINDS}
    embeddings = "embeddings" if flavour in {"a1111", "forge"} else "models/embeddings"
    assert usual == {
        "checkpoint": ["models/Stable-diffusion"],
        "vae": ["models/VAE"],
        "lora": ["models/Lora"],
        "controlnet": ["models/ControlNet"],
        "text_encoder": ["models/text_encoder"] if FLAVOURS[flavour].text_encoders else [],
        "component": ["models/Components"],
        "autoprune": ["models/Autoprune"],
        "embedding": list(dict.fromkeys([embeddings, "embeddings"])),
        "upscaler": ["models/ESRGAN"],
        "hypernetwork": ["models/hypernetworks"],
    }


@EVERY
def test_the_models_folder_can_be_elsewhere(flavour, plant, tmp_path):
    _, host = plant(flavour, FLAVOURS[flavour].models_flag, str(tmp_path / "big"))
    assert below(host, "vae", tmp_path) == ["big/VAE"]
    assert below(host, "autoprune", tmp_path) == ["big/Autoprune"]
    assert host.output_folder("component") == tmp_path / "big/Components"


@TWO_KINDS
def test_folders_of_flags_come_first_and_take_what_is_saved_once_they_exist(flavour, plant, tmp_path):
    flags = [
        "--ckpt-dir",
        str(tmp_path / "ckpt"),
        "--vae-dir",
        str(tmp_path / "vae"),
        "--lora-dir",
        str(tmp_path / "l"),
    ]
    _, host = plant(flavour, *flags)
    assert below(host, "checkpoint", tmp_path) == ["ckpt", "data/models/Stable-diffusion"]
    assert below(host, "vae", tmp_path) == ["vae", "data/models/VAE"]
    assert below(host, "lora", tmp_path) == ["l", "data/models/Lora"]
    assert host.output_folder("vae") == tmp_path / "data/models/VAE", "the named folder is not there"
    (tmp_path / "vae").mkdir()
    assert host.output_folder("vae") == tmp_path / "vae"


def test_lists_of_folders_are_taken_where_there_is_no_single_one(plant, tmp_path):
    flags = ["--ckpt-dirs", str(tmp_path / "a"), "--ckpt-dirs", str(tmp_path / "b"), "--vae-dirs", str(tmp_path / "v")]
    fake, host = plant("neo", *flags, "--text-encoder-dirs", str(tmp_path / "te"))
    assert not hasattr(fake.cmd_opts, "ckpt_dir")
    assert below(host, "checkpoint", tmp_path) == ["a", "b", "data/models/Stable-diffusion"]
    assert below(host, "vae", tmp_path) == ["v", "data/models/VAE"]
    assert below(host, "text_encoder", tmp_path) == ["te", "data/models/text_encoder"]


@pytest.mark.parametrize("value", [None, "", [], (), 7, {"a": 1}])
def test_odd_values_of_flags_name_no_folder(value, plant, tmp_path):
    fake, host = plant("a1111")
    fake.cmd_opts.ckpt_dir = value
    assert below(host, "checkpoint", tmp_path) == ["data/models/Stable-diffusion"]
    fake.cmd_opts.ckpt_dir = Path(tmp_path / "p")
    assert host.folders("checkpoint")[0] == tmp_path / "p", "Path as well as text"


def test_folders_in_the_options_are_known_too(plant, tmp_path):
    """SD.Next has its folders in the options, and none of the flags."""
    fake, host = plant("a1111")
    fake.shared.opts.data["vae_dir"] = str(tmp_path / "sdnext-vae")
    fake.shared.opts.data["te_dir"] = str(tmp_path / "te")
    assert host.folders("vae")[0] == tmp_path / "sdnext-vae"
    assert host.folders("text_encoder")[0] == tmp_path / "te"


def test_what_has_no_folder_here_goes_to_the_components(plant, tmp_path):
    _, host = plant("a1111")
    assert host.output_folder("text_encoder") == tmp_path / "data/models/Components"
    with pytest.raises(UsageError, match="not a kind"):
        host.output_folder("../..")


@EVERY
def test_lists_sub_folders_and_tells_vaes_beside_checkpoints_by_name(flavour, plant):
    files = (
        *("Stable-diffusion/a.ckpt", "Stable-diffusion/sub/b.safetensors", "Stable-diffusion/a.vae.safetensors"),
        *("VAE/v.pt", "Lora/styles/l.safetensors", "Components/c.pt", "Autoprune/d.ckpt", "ControlNet/n.pth"),
        *("ESRGAN/up.pth", "Stable-diffusion/readme.txt", "Stable-diffusion/.hidden.ckpt"),
    )
    _, host = plant(flavour, files=files)
    assert set(names(host)) == {name for name in files if name.endswith((".ckpt", ".safetensors", ".pt", "n.pth"))} - {
        "Stable-diffusion/.hidden.ckpt"
    }
    assert names(host, "vae") == ["Stable-diffusion/a.vae.safetensors", "VAE/v.pt"]
    assert names(host, "checkpoint") == ["Stable-diffusion/a.ckpt", "Stable-diffusion/sub/b.safetensors"]
    assert names(host, "upscaler") == ["ESRGAN/up.pth"], "no source, but a folder to save to"


def test_two_files_of_one_name_are_both_selectable(plant, tmp_path):
    put(tmp_path / "one/models", "m.ckpt")
    put(tmp_path / "two/models", "m.ckpt")
    flags = ["--ckpt-dirs", str(tmp_path / "one/models"), "--ckpt-dirs", str(tmp_path / "two/models")]
    _, host = plant("neo", *flags, files=["Stable-diffusion/m.ckpt", "Stable-diffusion/sub/m.ckpt"])
    entries = host.models()
    assert len({entry.label for entry in entries}) == 4
    assert {host.find(entry.label).path for entry in entries} == {
        *(tmp_path / side / "models/m.ckpt" for side in ("one", "two")),
        *(tmp_path / "data/models/Stable-diffusion" / name for name in ("m.ckpt", "sub/m.ckpt")),
    }
    assert not [entry for entry in entries if str(tmp_path) in entry.label], "names do not tell where things are"
    with pytest.raises(UsageError, match="stands for 4 models"):
        host.find("m.ckpt")


def test_a_folder_within_another_is_read_once_and_as_what_it_is(plant, tmp_path):
    models = tmp_path / "data/models"
    vaes = models / "Stable-diffusion/vaes"
    _, host = plant("a1111", "--vae-dir", str(vaes), files=["Stable-diffusion/a.ckpt", "Stable-diffusion/vaes/v.pt"])
    assert [(entry.name, entry.kind) for entry in host.models()] == [
        ("Stable-diffusion/a.ckpt", "checkpoint"),
        ("Stable-diffusion/vaes/v.pt", "vae"),
    ]


FORGED = ("/etc/passwd", "../x.ckpt", "Stable-diffusion/../../x.ckpt", "C:\\x.ckpt", "con", " · ", "\x00", "x" * 90_000)


@TWO_KINDS
@pytest.mark.parametrize("forged", FORGED, ids=lambda value: repr(value)[:20])
def test_forged_values_are_refused_in_one_sentence_without_paths(flavour, forged, plant, tmp_path):
    put(tmp_path, "x.ckpt", "data/x.ckpt")
    _, host = plant(flavour, files=["Stable-diffusion/a.ckpt"])
    for value in (forged, f"{forged} · 1.5 kB", str(tmp_path / "data/models/Stable-diffusion/a.ckpt")):
        with pytest.raises(UsageError) as caught:
            host.find(value)
        told = str(caught.value)
        assert "refresh the list" in told
        assert "of this WebUI" in told
        assert len(told) < 1000
    assert host.find("a.ckpt").name == "Stable-diffusion/a.ckpt", "a bare name of a listed model"


@EVERY
def test_settings_are_defaults_until_declared_and_then_those_of_the_page(flavour, plant, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", DUMMY)
    fake, host = plant(flavour)
    assert host.setting("precision", "auto") == "auto"
    assert not hasattr(fake.shared.opts, "model_toolkit_precision")
    host.register(lambda: "page")
    fake.script_callbacks.ui_settings_callback()
    declared = fake.shared.opts.data_labels
    assert list(declared) == [f"model_toolkit_{setting.key}" for setting in SETTINGS]
    for setting in SETTINGS:
        info = declared[f"model_toolkit_{setting.key}"]
        assert info.default == setting.default
        assert info.section == ("model_toolkit", "Model Toolkit")
        assert setting.explanation in info.comment_after
        assert type(info.default) in {str, bool, int}, "config.json is plain JSON"
    fake.shared.opts.set("model_toolkit_precision", "bf16")
    fake.shared.opts.set("model_toolkit_workers", 3.0)
    fake.shared.opts.set("model_toolkit_sources", "burn")
    fake.shared.opts.set("model_toolkit_fix_clip", "yes")
    assert host.setting("precision", "auto") == "bf16"
    assert host.setting("workers", 0) == 3, "a slider's number may come back as a float"
    assert host.setting("sources", "done") == "done", "not one of the choices"
    assert host.setting("fix_clip", False) is False, "not a switch"


def test_a_host_without_explanations_still_gets_the_settings(plant, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", DUMMY)
    fake, host = plant("classic")

    class Bare:
        def __init__(self, default, label, component, component_args, section):
            self.default, self.section, self.do_not_save = default, section, False

    fake.shared.OptionInfo = Bare
    host.register(lambda: "page")
    fake.script_callbacks.ui_settings_callback()
    assert len(fake.shared.opts.data_labels) == len(SETTINGS)


@EVERY
def test_the_tab_is_registered_once_however_often_asked(flavour, plant):
    fake, host = plant(flavour)
    for _ in range(3):
        host.register(lambda: "page")
    assert fake.script_callbacks.ui_tabs_callback() == [("page", "Toolkit", "model_toolkit")]
    assert len(fake.script_callbacks.callback_map["callbacks_ui_settings"]) == 1
    fake.script_callbacks.clear_callbacks()
    host.register(lambda: "new page")
    assert fake.script_callbacks.ui_tabs_callback() == [("new page", "Toolkit", "model_toolkit")]
    (registered,) = fake.script_callbacks.callback_map["callbacks_ui_tabs"]
    assert registered.name.endswith("/model_toolkit") == FLAVOURS[flavour].named


@EVERY
def test_after_a_save_the_lists_of_the_host_know_the_file(flavour, plant, tmp_path):
    fake, host = plant(flavour)
    models = tmp_path / "data/models"
    put(models, "Stable-diffusion/new.safetensors", "VAE/new.pt", "Lora/new.safetensors", "text_encoder/te.safetensors")
    for kind in ("vae", "lora", "checkpoint", "text_encoder", "component", "autoprune"):
        host.refresh(kind)
    assert "new.safetensors" in fake.sd_models.checkpoints_list
    assert "new.pt" in fake.sd_vae.vae_dict
    assert "new" in fake.networks.available_networks
    if FLAVOURS[flavour].forge:
        assert {"new.pt", "te.safetensors"} <= set(fake.main_entry.module_list)


@EVERY
def test_other_lists_of_the_host_know_what_was_filed(flavour, plant, tmp_path):
    """Embeddings are read without a model: to ask for the current one would load it."""
    fake, host = plant(flavour)
    models = tmp_path / "data/models"
    put(host.output_folder("embedding"), "style.pt", "sub/deep.pt")
    put(models, "hypernetworks/hyper.pt", "ControlNet/canny.safetensors", "ESRGAN/4x.pth")
    said = {kind: host.refresh(kind) for kind in KINDS}
    assert "canny" in fake.global_state.found
    if flavour in {"a1111", "forge"}:
        assert "hyper" in fake.shared.hypernetworks
    assert said.pop("upscaler") == "New upscalers are in the WebUI's lists after Reload UI."
    if FLAVOURS[flavour].forge:
        database = fake.ui_extra_networks_textual_inversion.embedding_db
        assert set(database.word_embeddings) == {"style", "deep"}
        assert "next checkpoint" in said.pop("embedding")
    else:
        database = fake.sd_hijack.model_hijack.embedding_db
        (folder,) = database.embedding_dirs.values()
        folder.update()
        put(host.output_folder("embedding"), "sub/later.pt")
        assert not folder.has_changed()
        host.refresh("embedding")
        assert folder.has_changed(), "the WebUI reads it before the next picture"
    assert set(said.values()) == {""}


def test_refresh_never_makes_a_host_download_a_model(plant, tmp_path):
    fake, host = plant("a1111")
    host.refresh("checkpoint")
    put(tmp_path / "data/models", "Stable-diffusion/only.pth", "Stable-diffusion/only.vae.safetensors")
    host.refresh("checkpoint")
    assert fake.sd_models.downloads == 0


@EVERY
def test_a_refresh_that_fails_or_is_not_there_is_no_error(flavour, plant, monkeypatch):
    fake, host = plant(flavour, files=["Stable-diffusion/a.ckpt"])

    def fail():
        raise RuntimeError("broken list")

    fake.sd_models.list_models = fake.sd_vae.refresh_vae_list = fake.networks.list_available_networks = fail
    fake.shared.reload_hypernetworks = fake.global_state.update_cn_models = fail
    fake.global_state.update_controlnet_filenames = fail
    if FLAVOURS[flavour].forge:
        fake.main_entry.refresh_models = fail
        fake.ui_extra_networks_textual_inversion.embedding_db.load_textual_inversion_embeddings = fail
    else:
        fake.sd_hijack.model_hijack.embedding_db = None
    for kind in KINDS:
        host.refresh(kind)
    for name in ("modules.sd_models", "modules.sd_vae", "networks"):
        monkeypatch.delitem(sys.modules, name)
    for kind in KINDS:
        host.refresh(kind)
    assert host.in_use(Path("x")) is False


@TWO_KINDS
def test_nothing_is_in_use_before_the_first_model_was_loaded(flavour, plant, tmp_path):
    _, host = plant(flavour, files=["Stable-diffusion/a.ckpt"])
    assert not host.in_use(tmp_path / "data/models/Stable-diffusion/a.ckpt")


@TWO_KINDS
def test_the_loaded_checkpoint_is_in_use_under_each_of_its_names(flavour, plant, tmp_path):
    fake, host = plant(flavour, files=["Stable-diffusion/a.ckpt", "Stable-diffusion/b.ckpt"])
    folder = tmp_path / "data/models/Stable-diffusion"
    loaded = folder / "a.ckpt"
    fake.sd_models.model_data.sd_model = SimpleNamespace(sd_checkpoint_info=CheckpointInfo(str(loaded)))
    assert host.in_use(loaded)
    assert host.in_use(folder / ".." / "Stable-diffusion" / "a.ckpt")
    assert not host.in_use(folder / "b.ckpt")
    assert not host.in_use(folder / "gone.ckpt")
    (folder / "hard.ckpt").hardlink_to(loaded)
    assert host.in_use(folder / "hard.ckpt")
    loaded.unlink()
    assert host.in_use(loaded), "deleted on disk, and still the loaded one"


def test_all_models_that_a1111_keeps_are_in_use(plant, tmp_path):
    fake, host = plant("a1111")
    models = tmp_path / "data/models"
    other, cached = CheckpointInfo(str(models / "other.ckpt")), CheckpointInfo(str(models / "cached.ckpt"))
    fake.sd_models.model_data.loaded_sd_models = [SimpleNamespace(sd_checkpoint_info=other)]
    fake.sd_models.checkpoints_loaded[cached] = {}
    fake.sd_vae.loaded_vae_file = str(models / "v.pt")
    fake.sd_vae.checkpoints_loaded[str(models / "w.pt")] = {}
    fake.networks.loaded_networks.append(
        SimpleNamespace(network_on_disk=network_on_disk(str(models / "l.safetensors")))
    )
    for name in ("other.ckpt", "cached.ckpt", "v.pt", "w.pt", "l.safetensors"):
        assert host.in_use(models / name), name
    assert not host.in_use(models / "free.pt")


def test_what_forge_has_chosen_to_load_is_in_use(plant, tmp_path):
    fake, host = plant("forge")
    models = tmp_path / "data/models"
    fake.sd_models.model_data.forge_loading_parameters = {
        "checkpoint_info": CheckpointInfo(str(models / "chosen.safetensors")),
        "additional_modules": [str(models / "VAE/ae.safetensors"), str(models / "text_encoder/t5.safetensors")],
    }
    for name in ("chosen.safetensors", "VAE/ae.safetensors", "text_encoder/t5.safetensors"):
        assert host.in_use(models / name), name
