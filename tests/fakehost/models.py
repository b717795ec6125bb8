"""What the hosts know about model files: ``sd_models``, ``sd_vae``, Forge's ``main_entry``, Lora's ``networks``."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.fakehost.flavours import Flavour


class CheckpointInfo:
    def __init__(self, filename):
        self.filename = filename
        self.name = os.path.basename(filename)
        self.title = self.name


class FakeInitialModel:
    """What Forge has in place of a model before the first use."""

    def __init__(self):
        self.cond_stage_model = None
        self.chunk_length = 75


class SdModelData:
    """A1111's: ``get_sd_model`` would load a checkpoint."""

    def __init__(self):
        self.sd_model = None
        self.loaded_sd_models = []
        self.was_loaded_at_least_once = False

    def get_sd_model(self):
        raise AssertionError("a checkpoint was loaded for nothing")


class ForgeModelData:
    def __init__(self):
        self.sd_model = FakeInitialModel()
        self.forge_loading_parameters = {}
        self.forge_hash = ""

    def get_sd_model(self):
        return self.sd_model


def _files(folder: str | Path, endings: tuple[str, ...]) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.name.lower().endswith(endings))


def _configured(cmd_opts: Any, name: str) -> list[str]:
    one = getattr(cmd_opts, f"{name}_dir", None)
    return [*([one] if one else []), *getattr(cmd_opts, f"{name}_dirs", [])]


def make_sd_models(flavour: Flavour, shared: Any, models_path: str) -> ModuleType:
    module: Any = ModuleType("modules.sd_models")
    module.model_path = os.path.abspath(os.path.join(models_path, "Stable-diffusion"))
    module.checkpoints_list = {}
    module.checkpoint_aliases = {}
    module.checkpoints_loaded = OrderedDict()
    module.CheckpointInfo, module.FakeInitialModel = CheckpointInfo, FakeInitialModel
    module.model_data = ForgeModelData() if flavour.forge else SdModelData()
    module.downloads = 0

    def list_models():
        module.checkpoints_list.clear()
        for folder in (*_configured(shared.cmd_opts, "ckpt"), module.model_path):
            for filename in _files(folder, (".ckpt", ".safetensors")):
                if not filename.endswith((".vae.ckpt", ".vae.safetensors")):
                    info = CheckpointInfo(filename)
                    module.checkpoints_list.setdefault(info.title, info)
        if flavour.downloads and not module.checkpoints_list:
            module.downloads += 1

    def checkpoint_tiles(use_short=False):
        return [info.title for info in module.checkpoints_list.values()]

    module.list_models, module.checkpoint_tiles = list_models, checkpoint_tiles
    return module


def make_sd_vae(shared: Any, sd_models: Any, models_path: str) -> ModuleType:
    module: Any = ModuleType("modules.sd_vae")
    module.vae_path = os.path.abspath(os.path.join(models_path, "VAE"))
    module.vae_dict = {}
    module.loaded_vae_file = None
    module.checkpoints_loaded = OrderedDict()

    def refresh_vae_list():
        module.vae_dict.clear()
        beside = (".vae.ckpt", ".vae.pt", ".vae.safetensors")
        found = [
            file
            for folder in (*_configured(shared.cmd_opts, "ckpt"), sd_models.model_path)
            for file in _files(folder, beside)
        ]
        for folder in (module.vae_path, *_configured(shared.cmd_opts, "vae")):
            found += _files(folder, (".ckpt", ".pt", ".safetensors"))
        module.vae_dict.update({os.path.basename(file): file for file in found})

    module.refresh_vae_list = refresh_vae_list
    return module


def make_main_entry(shared: Any, sd_models: Any, models_path: str) -> ModuleType:
    """``modules_forge.main_entry``."""
    module: Any = ModuleType("modules_forge.main_entry")
    module.module_list = {}

    def refresh_models():
        sd_models.list_models()
        module.module_list.clear()
        folders = [os.path.join(models_path, "VAE"), os.path.join(models_path, "text_encoder")]
        folders += [*_configured(shared.cmd_opts, "vae"), *_configured(shared.cmd_opts, "text_encoder")]
        for folder in folders:
            for file in _files(folder, (".ckpt", ".pt", ".bin", ".safetensors", ".gguf")):
                module.module_list[os.path.basename(file)] = file
        return sd_models.checkpoint_tiles(), module.module_list.keys()

    module.refresh_models = refresh_models
    return module


def make_networks(shared: Any) -> ModuleType:
    """``networks`` of the built-in Lora extension; its folder stays on ``sys.path`` in every host."""
    module: Any = ModuleType("networks")
    module.available_networks = {}
    module.loaded_networks = []
    module.networks_in_memory = {}

    def list_available_networks():
        module.available_networks.clear()
        os.makedirs(shared.cmd_opts.lora_dir, exist_ok=True)
        for file in _files(shared.cmd_opts.lora_dir, (".pt", ".ckpt", ".safetensors")):
            module.available_networks[Path(file).stem] = network_on_disk(file)

    module.list_available_networks = list_available_networks
    return module


def network_on_disk(filename: str) -> SimpleNamespace:
    return SimpleNamespace(name=Path(filename).stem, filename=filename)
