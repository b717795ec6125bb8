"""The fake hosts against the real ones: the signatures of everything that the extension calls or is called by.

The table was read in the hosts' sources: A1111 1.10.1 (the amdgpu fork, e61addd), reForge 3b56b26, Forge dfdcbab,
Forge Classic 1f95d71; of Forge Neo single files. Annotations are left out.
"""

from __future__ import annotations

import inspect

import pytest

from tests.fakehost.flavours import FLAVOURS
from tests.fakehost.host import FakeHost

EVENTS = ("app_started", "before_reload", "model_loaded", "ui_tabs", "ui_settings", "script_unloaded", "before_ui")

COMMON = {
    "script_callbacks.app_started_callback": "(demo, app)",
    "script_callbacks.app_reload_callback": "()",
    "script_callbacks.ui_tabs_callback": "()",
    "script_callbacks.ui_settings_callback": "()",
    "script_callbacks.script_unloaded_callback": "()",
    "script_callbacks.before_ui_callback": "()",
    "script_callbacks.clear_callbacks": "()",
    "script_callbacks.remove_callbacks_for_function": "(callback_func)",
    "script_loading.load_module": "(path)",
    "scripts.basedir": "()",
    "scripts.load_scripts": "()",
    "scripts.list_scripts": "(scriptdirname, extension, *, include_extensions=True)",
    "scripts.list_files_with_name": "(filename)",
    "extensions.list_extensions": "()",
    "extensions.active": "()",
    "options.OptionInfo": (
        "(default=None, label='', component=None, component_args=None, onchange=None, section=None, refresh=None, "
        "comment_before='', comment_after='', infotext=None, restrict_api=False, category_id=None)"
    ),
    "options.OptionInfo.info": "(self, info)",
    "options.OptionInfo.link": "(self, label, url)",
    "options.OptionInfo.html": "(self, html)",
    "options.OptionInfo.needs_restart": "(self)",
    "options.OptionInfo.needs_reload_ui": "(self)",
    "options.Options": "(data_labels, restricted_opts)",
    "options.Options.add_option": "(self, key, info)",
    "options.Options.set": "(self, key, value, is_api=False, run_callbacks=True)",
    "options.Options.save": "(self, filename)",
    "options.Options.load": "(self, filename)",
    "options.Options.same_type": "(self, x, y)",
    "options.Options.dumpjson": "(self)",
    "sd_models.list_models": "()",
    "sd_models.checkpoint_tiles": "(use_short=False)",
    "sd_models.CheckpointInfo": "(filename)",
    "sd_models.model_data.get_sd_model": "()",
    "sd_vae.refresh_vae_list": "()",
    "networks.list_available_networks": "()",
    "shared.state.request_restart": "()",
    "shared.state.wait_for_server_command": "(timeout=None)",
}

FORGE = {
    "main_entry.refresh_models": "()",
    "sd_models.FakeInitialModel": "()",
    "ui_extra_networks_textual_inversion.embedding_db.load_textual_inversion_embeddings": (
        "(force_reload=False, sync_with_sd_model=True)"
    ),
}

HIJACKED = {
    "sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings": "(force_reload=False)",
    "sd_hijack.model_hijack.embedding_db.add_embedding_dir": "(path)",
}

HYPERNETWORKS = {"shared.reload_hypernetworks": "()"}

CONTROLNETS = {"global_state.update_controlnet_filenames": "()"}

EXTENSION = {"global_state.update_cn_models": "()"}
"""Of the ControlNet extension that A1111's users install (sd-webui-controlnet 003d0f4)."""

FLAGS = {
    "a1111": {"ckpt_dir": None, "vae_dir": None, "share": False, "ngrok": None, "ngrok_options": {}, "listen": False},
    "forge": {"ckpt_dir": None, "vae_dir": None, "text_encoder_dir": None, "controlnet_dir": None, "share": False},
    "classic": {"ckpt_dir": None, "vae_dir": None, "controlnet_dir": None, "model_ref": None, "ngrok_options": {}},
    "neo": {"ckpt_dirs": [], "vae_dirs": [], "lora_dirs": [], "text_encoder_dirs": [], "model_ref": None},
}
"""Flags without an argument on the command line, with the values that they then have."""

ABSENT = {
    "a1111": {"ckpt_dirs", "text_encoder_dir", "model_ref"},
    "forge": {"ckpt_dirs", "text_encoder_dirs", "model_ref"},
    "classic": {"ckpt_dirs", "text_encoder_dir", "models_dir"},
    "neo": {"ckpt_dir", "vae_dir", "text_encoder_dir", "models_dir"},
}


def expected(flavour):
    registering = "(callback, *, name=None)" if flavour != "classic" else "(callback)"
    table = {**COMMON, **{f"script_callbacks.on_{event}": registering for event in EVENTS}}
    table |= FORGE if flavour in {"forge", "neo"} else HIJACKED
    table |= HYPERNETWORKS if flavour in {"a1111", "forge"} else {}
    return table | (EXTENSION if flavour == "a1111" else CONTROLNETS)


def signature(host, dotted):
    first, *others = dotted.split(".")
    found = getattr(host, first)
    for name in others:
        found = getattr(found, name)
    bare = inspect.signature(found)
    parameters = [one.replace(annotation=inspect.Parameter.empty) for one in bare.parameters.values()]
    return str(bare.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_functions_take_what_those_of_the_host_take(flavour, tmp_path):
    host = FakeHost(flavour, tmp_path)
    table = expected(flavour)
    assert {name: signature(host, name) for name in table} == table


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_command_line_is_that_of_the_host(flavour, tmp_path):
    flags = vars(FakeHost(flavour, tmp_path).cmd_opts)
    assert {name: flags[name] for name in FLAGS[flavour]} == FLAGS[flavour]
    assert not ABSENT[flavour] & flags.keys()
    assert flags["lora_dir"] == str(tmp_path / "models" / "Lora"), "the Lora extension's flag is never None"


def test_the_habits_that_differ(tmp_path):
    habits = {name: (one.named, one.path_stays, one.forge, one.lists) for name, one in FLAVOURS.items()}
    assert habits == {
        "a1111": (True, False, False, False),
        "forge": (True, True, True, False),
        "classic": (False, True, False, False),
        "neo": (True, True, True, True),
    }


def test_reading_the_current_model_would_load_one(tmp_path):
    with pytest.raises(AssertionError, match="sd_model was read"):
        _ = FakeHost("a1111", tmp_path).shared.sd_model
