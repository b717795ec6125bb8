"""One fake WebUI: its modules, made for a flavour and a command line, and planted into ``sys.modules``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fakehost import callbacks, flags, lists, models, options, scripts
from tests.fakehost.flavours import FLAVOURS


class Shared(ModuleType):
    """``modules.shared``: reading ``sd_model`` would load a checkpoint."""

    @property
    def sd_model(self):
        raise AssertionError("shared.sd_model was read: A1111 loads a checkpoint then")


class State:
    """``shared.state``, as far as Reload UI needs it."""

    def __init__(self):
        self._command = ""
        self._signal = threading.Event()

    def request_restart(self):
        self._send("restart")

    def request_stop(self):
        self._send("stop")

    def _send(self, command: str) -> None:
        self._command = command
        self._signal.set()

    def wait_for_server_command(self, timeout=None):
        self._signal.wait(timeout)
        self._signal.clear()
        command, self._command = self._command, ""
        return command


class FakeHost:
    """``argv`` are the host's flags, ``roots`` the folders of extensions beside those in the data folder."""

    def __init__(self, flavour: str, data_dir: Path, argv: Sequence[str] = (), roots: Sequence[Path] = ()) -> None:
        self.flavour = FLAVOURS[flavour]
        self.roots = tuple(Path(os.path.abspath(root)) for root in roots)
        data_path, models_path = flags.early_paths(self.flavour, data_dir, argv)
        self.data_path, self.models_path = Path(data_path), Path(models_path)
        self.script_path = os.getcwd()
        for folder in ("Stable-diffusion", "VAE", "Lora"):
            (self.models_path / folder).mkdir(parents=True, exist_ok=True)
        parser = flags.parser_of(self.flavour, self.data_path)
        scripts.preload_extensions([*self.roots, *(self.data_path / "extensions").glob("*/")], parser)
        self.cmd_opts = flags.parsed(parser, argv, models_path)
        self.modules = self._made()

    def _made(self) -> dict[str, ModuleType]:
        shared: Any = Shared("modules.shared")
        shared.cmd_opts, shared.state, shared.demo = self.cmd_opts, State(), None
        shared.OptionInfo = options.OptionInfo
        shared.opts = options.Options({}, set())
        shared.config_filename = self.cmd_opts.ui_settings_file
        shared.opts.load(shared.config_filename)
        shared.opts.__dict__["frozen"] = self.cmd_opts.freeze_settings
        paths: Any = ModuleType("modules.paths")
        paths.models_path, paths.data_path = str(self.models_path), str(self.data_path)
        paths.script_path = self.script_path
        paths.extensions_dir = str(self.data_path / "extensions")
        flags_module: Any = ModuleType("modules.shared_cmd_options")
        flags_module.cmd_opts = self.cmd_opts
        script_callbacks = callbacks.make(self.flavour.named)
        extensions = scripts.make_extensions(self.roots, paths.extensions_dir, shared)
        sd_models = models.make_sd_models(self.flavour, shared, str(self.models_path))
        made = {
            "modules": ModuleType("modules"),
            "modules.shared": shared,
            "modules.paths": paths,
            "modules.paths_internal": paths,
            "modules.shared_cmd_options": flags_module,
            "modules.options": options.make(),
            "modules.script_callbacks": script_callbacks,
            "modules.extensions": extensions,
            "modules.script_loading": scripts.make_script_loading(),
            "modules.scripts": scripts.make_scripts(self.flavour, self.script_path, extensions, script_callbacks),
            "modules.sd_models": sd_models,
            "modules.sd_vae": models.make_sd_vae(shared, sd_models, str(self.models_path)),
            "networks": models.make_networks(shared),
            **lists.make_lists(self.flavour, shared, str(self.models_path)),
        }
        made["modules"].__path__ = []
        if self.flavour.forge:
            made["modules_forge"] = ModuleType("modules_forge")
            made["modules_forge.main_entry"] = models.make_main_entry(shared, sd_models, str(self.models_path))
        return made

    def __getattr__(self, name: str) -> Any:
        """A module by its last name: ``host.sd_models``."""
        for full, module in self.__dict__.get("modules", {}).items():
            if full.rpartition(".")[2] == name:
                return module
        raise AttributeError(name)

    @contextmanager
    def planted(self) -> Iterator[FakeHost]:
        """The modules are in ``sys.modules``, and are taken out again; so is what scripts did to ``sys.path``."""
        before, path = {name: sys.modules.get(name) for name in self.modules}, sys.path
        sys.modules.update(self.modules)
        try:
            yield self
        finally:
            sys.path = path
            for name, module in before.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module

    def start(self) -> None:
        """What the host does before it builds a page, at the start and at each Reload UI: lists, then scripts."""
        self.extensions.list_extensions()
        self.sd_models.list_models()
        self.scripts.load_scripts()
        self.sd_vae.refresh_vae_list()

    def reload(self) -> None:
        """Reload UI, but for the page."""
        self.script_callbacks.app_reload_callback()
        self.script_callbacks.script_unloaded_callback()
        self.start()
