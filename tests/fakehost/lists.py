"""The hosts' lists of embeddings, hypernetworks and ControlNets."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.fakehost.flavours import Flavour


class DirWithTextualInversionEmbeddings:
    """One folder; ``has_changed`` sees files that came into the folder itself, not below it."""

    def __init__(self, path):
        self.path = path
        self.mtime = None

    def has_changed(self):
        return os.path.isdir(self.path) and (self.mtime is None or os.path.getmtime(self.path) > self.mtime)

    def update(self):
        if os.path.isdir(self.path):
            self.mtime = os.path.getmtime(self.path)


class EmbeddingDatabase:
    """A1111's, of the hijacked model: to read embeddings it asks the current model for their width."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self.word_embeddings: dict[str, str] = {}
        self.embedding_dirs: dict[str, DirWithTextualInversionEmbeddings] = {}

    def add_embedding_dir(self, path):
        self.embedding_dirs[path] = DirWithTextualInversionEmbeddings(path)

    def load_textual_inversion_embeddings(self, force_reload=False):
        if force_reload or any(folder.has_changed() for folder in self.embedding_dirs.values()):
            _ = self._shared.sd_model
            self._read()

    def _read(self):
        self.word_embeddings.clear()
        for folder in self.embedding_dirs.values():
            names = (path.stem for path in Path(folder.path).rglob("*") if path.is_file())
            self.word_embeddings.update((name, name) for name in names)
            folder.update()


class ForgeEmbeddingDatabase(EmbeddingDatabase):
    """Forge's, of the page of cards alone."""

    def load_textual_inversion_embeddings(self, force_reload=False, sync_with_sd_model=True):
        if force_reload or any(folder.has_changed() for folder in self.embedding_dirs.values()):
            if sync_with_sd_model:
                _ = self._shared.sd_model
            self._read()


def make_lists(flavour: Flavour, shared: Any, models_path: str) -> dict[str, ModuleType]:
    """The modules of this host, by name."""
    kind = ForgeEmbeddingDatabase if flavour.forge else EmbeddingDatabase
    embeddings = kind(shared)
    embeddings.add_embedding_dir(shared.cmd_opts.embeddings_dir)
    made: dict[str, Any] = {}
    if flavour.forge:
        page: Any = ModuleType("modules.ui_extra_networks_textual_inversion")
        page.embedding_db = embeddings
        made[page.__name__] = page
    else:
        hijack: Any = ModuleType("modules.sd_hijack")
        hijack.model_hijack = SimpleNamespace(embedding_db=embeddings)
        made[hijack.__name__] = hijack
    if hasattr(shared.cmd_opts, "hypernetwork_dir"):
        _add_hypernetworks(shared)
    # A1111 has them from an extension, the others from one of their own.
    built_in = flavour.name != "a1111"
    controlnets: Any = ModuleType("lib_controlnet.global_state" if built_in else "scripts.global_state")
    controlnets.found = {}

    def update():
        controlnets.found = {path.stem: str(path) for path in Path(models_path, "ControlNet").rglob("*.*")}

    if built_in:
        controlnets.update_controlnet_filenames = update
    else:
        controlnets.update_cn_models = update
    made[controlnets.__name__] = controlnets
    return made


def _add_hypernetworks(shared: Any) -> None:
    shared.hypernetworks = {}

    def reload_hypernetworks():
        folder = Path(shared.cmd_opts.hypernetwork_dir)
        shared.hypernetworks = {path.stem: str(path) for path in folder.rglob("*.pt")}

    shared.reload_hypernetworks = reload_hypernetworks
