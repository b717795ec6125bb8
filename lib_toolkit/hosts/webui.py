"""The tab inside a WebUI: A1111, reForge, Forge, Forge Classic, Forge Neo, SD.Next from one source.

Only this file knows the WebUIs' own ``modules`` package. Nothing of it is ever imported from here: what a running
WebUI uses it has loaded, and its parts differ and are replaced on Reload UI; so each is looked up when it is
needed and asked by ``getattr`` with a fallback. Options exist only once the settings page was built, so they are
read when they are used. Facts per host are from their sources as of 2025 and 2026: paths and flags from
``modules/cmd_args.py`` and ``modules/paths_internal.py``, loaded models from ``modules/sd_models.py``,
``modules/sd_vae.py`` and the Lora extension's ``networks.py``.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts import listing
from lib_toolkit.hosts.host import (
    AUTOPRUNE,
    CHECKPOINT,
    COMPONENT,
    CONTROLNET,
    EMBEDDING,
    HYPERNETWORK,
    KINDS,
    LISTED,
    LORA,
    TEXT_ENCODER,
    UPSCALER,
    VAE,
    Entry,
    Visitor,
    nothing,
)
from lib_toolkit.hosts.listing import Place
from lib_toolkit.hosts.settings import SETTINGS, Setting, Value, value_or

TITLE, ELEMENT = "Toolkit", "model_toolkit"
"""The tab's name on the page, and its id: the page has it as ``tab_model_toolkit``."""

SECTION = ("model_toolkit", "Model Toolkit")
"""Id and title of our part of the settings page."""

ALLOW_FLAG = "--toolkit-allow-remote-writes"

_TUNNELS = ("share", "ngrok", "ngrok_options", "cloudflared", "localhostrun", "remotemoe", "googleusercontent")
"""Flags (of the WebUIs and of an extension for tunnels) by which strangers come in under a local address."""


@dataclass(frozen=True)
class _Folders:
    """Where a WebUI keeps a kind: in the folders of flags and options, and in ``usual`` below the models folder.

    ``data``: below the data folder instead. ``told``: only where the WebUI knows one of the flags or options.
    """

    usual: str
    flags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    data: bool = False
    told: bool = False


_FOLDERS = {
    CHECKPOINT: _Folders("Stable-diffusion", ("ckpt_dir", "ckpt_dirs"), ("ckpt_dir",)),
    VAE: _Folders("VAE", ("vae_dir", "vae_dirs"), ("vae_dir",)),
    LORA: _Folders("Lora", ("lora_dir", "lora_dirs", "lyco_dir_backcompat"), ("lora_dir",)),
    CONTROLNET: _Folders("ControlNet", ("controlnet_dir",), ("control_net_models_path",)),
    TEXT_ENCODER: _Folders("text_encoder", ("text_encoder_dir", "text_encoder_dirs"), ("te_dir",), told=True),
    COMPONENT: _Folders("Components"),
    AUTOPRUNE: _Folders("Autoprune"),
    EMBEDDING: _Folders("embeddings", ("embeddings_dir",), ("embeddings_dir",), data=True),
    UPSCALER: _Folders("ESRGAN", ("esrgan_models_path",), ("esrgan_models_path",)),
    HYPERNETWORK: _Folders("hypernetworks", ("hypernetwork_dir",), ("hypernetwork_dir",)),
}


def is_running() -> bool:
    """Whether this process is a WebUI that has loaded itself."""
    return all(_module(name) is not None for name in ("shared", "paths", "script_callbacks"))


class WebuiHost:
    """The WebUI of this process. Keeps nothing but what it registered: all else is looked up at the time of use."""

    def __init__(self) -> None:
        self._registered: list[Callable[..., object]] = []

    @property
    def name(self) -> str:
        return "WebUI"

    def write_refusal(self, visitor: Visitor) -> str | None:
        flags = _flags()
        if getattr(flags, "toolkit_allow_remote_writes", False):
            return None
        way_out = f"start the WebUI with {ALLOW_FLAG} to allow it"
        if _is_tunnelled(flags):
            return f"Nothing may be saved here while this WebUI can be reached from outside by a tunnel; {way_out}."
        if not visitor.is_local:
            return f"Nothing may be saved here from another computer or through a proxy; {way_out}."
        return None

    def folders(self, kind: str) -> tuple[Path, ...]:
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is not a kind of model folder; choose {', '.join(KINDS)}.")
        known = _FOLDERS[kind]
        told = [getattr(_flags(), flag, None) for flag in known.flags]
        told += [_option(option) for option in known.options]
        folders = [folder for value in told for folder in _folders_of(value)]
        if not known.told or folders or any(hasattr(_flags(), flag) for flag in known.flags):
            folders.append((_data_folder() if known.data else _models_folder()) / known.usual)
        return tuple(dict.fromkeys(folders))

    def models(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Files in the WebUI's folders and their sub-folders; in checkpoint folders ``*.vae.*`` are VAEs."""
        if kind is not None and kind not in LISTED:
            return listing.entries_of(self._places((kind,)))
        entries = listing.entries_of(self._places(LISTED))
        return entries if kind is None else tuple(entry for entry in entries if entry.kind == kind)

    def find(self, value: str) -> Entry:
        return listing.find(self.models(), value, "this WebUI")

    def refresh(self, kind: str) -> str:
        """Make the WebUI's own lists afresh, by the functions behind its refresh buttons."""
        calls: list[tuple[str, str]] = []
        if kind == CHECKPOINT and self._has_checkpoints():
            calls += [("modules.sd_models", "list_models")]
        if kind in {CHECKPOINT, VAE}:
            calls += [("modules.sd_vae", "refresh_vae_list")]
        if kind in {CHECKPOINT, VAE, TEXT_ENCODER} and self._has_checkpoints():
            calls += [("modules_forge.main_entry", "refresh_models")]
        if kind == LORA:
            calls += [("networks", "list_available_networks")]
        if kind == HYPERNETWORK:
            calls += [("modules.shared", "reload_hypernetworks")]
        if kind == CONTROLNET:  # Forge's own, or the extension of A1111's users
            calls += [("lib_controlnet.global_state", "update_controlnet_filenames")]
            calls += [("scripts.global_state", "update_cn_models")]
        for module, function in calls:
            refresh = getattr(sys.modules.get(module), function, None)
            if callable(refresh):
                with contextlib.suppress(Exception):  # a list that stays old is no reason to fail after a save
                    refresh()
        if kind == EMBEDDING:
            return _embeddings_came()
        return "New upscalers are in the WebUI's lists after Reload UI." if kind == UPSCALER else ""

    def output_folder(self, kind: str) -> Path:
        """The first of the kind's folders that exists, or else the one that the user named; components where the
        WebUI has no folder for the kind."""
        folders = self.folders(kind) or self.folders(COMPONENT)
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def private(self, text: str) -> str:
        folders = [folder for kind in KINDS for folder in self.folders(kind)]
        folders += [_models_folder(), _data_folder()]
        return listing.without_places(text, {folder: _shown(folder) for folder in folders})

    def setting(self, key: str, default: Value) -> Value:
        return value_or(key, _option(f"{ELEMENT}_{key}", default), default)

    def in_use(self, path: Path) -> bool:
        """Whether a checkpoint, VAE, text encoder or LoRA that the WebUI holds in memory, or has chosen to load
        next, is this file. The WebUI's ``shared.sd_model`` is never touched: reading it loads a model."""
        return any(_same_file(path, used) for used in (*_loaded_checkpoints(), *_loaded_parts(), *_loaded_loras()))

    @property
    def settings_place(self) -> str:
        return f"Settings → {SECTION[1]}"

    def register(
        self,
        build: Callable[[], object],
        started: Callable[[], None] = nothing,
        ended: Callable[[], None] = nothing,
    ) -> None:
        """Show the tab, and our section on the settings page. Once per load of the scripts, however often called."""
        callbacks = _module("script_callbacks")
        for function in self._registered:
            _call(callbacks, "remove_callbacks_for_function", function)
        wanted: dict[str, Callable[..., object]] = {
            "on_ui_settings": _settings_callback,
            "on_ui_tabs": lambda: [(build(), TITLE, ELEMENT)],
            "on_app_started": lambda *page: started(),
            "on_script_unloaded": ended,
        }
        self._registered = list(wanted.values())
        for name, function in wanted.items():
            add = getattr(callbacks, name)
            if "name" in inspect.signature(add).parameters:  # Forge Classic and SD.Next know no names
                add(function, name=ELEMENT)
            else:
                add(function)

    def _places(self, kinds: tuple[str, ...]) -> list[Place]:
        places: list[Place] = []
        taken: set[str] = set()
        for kind in kinds:
            for folder in self.folders(kind):
                base = shown = _shown(folder)
                number = 2
                while shown.casefold() in taken:
                    shown, number = f"{base} ({number})", number + 1
                taken.add(shown.casefold())
                places.append(Place(folder, kind, shown))
        return places

    def _has_checkpoints(self) -> bool:
        """A1111 downloads one where it finds none, and counts only these endings."""
        return any(entry.path.suffix.lower() in {".ckpt", ".safetensors"} for entry in self.models(CHECKPOINT))


def _module(name: str) -> ModuleType | None:
    return sys.modules.get(f"modules.{name}")


def _call(module: ModuleType | None, function: str, *arguments: object) -> None:
    found = getattr(module, function, None)
    if callable(found):
        found(*arguments)


def _flags() -> object:
    """The parsed command line."""
    return getattr(_module("shared"), "cmd_opts", None) or getattr(_module("shared_cmd_options"), "cmd_opts", None)


def _option(key: str, default: Value | None = None) -> object:
    """An option of the WebUI as it is now; the default where it is not, or not yet, declared."""
    return getattr(getattr(_module("shared"), "opts", None), key, default)


def _models_folder() -> Path:
    told = getattr(_module("paths"), "models_path", None) or getattr(_module("paths_internal"), "models_path", None)
    return _absolute(told) if told else _data_folder() / "models"


def _data_folder() -> Path:
    told = getattr(_module("paths"), "data_path", None) or getattr(_module("paths_internal"), "data_path", None)
    return _absolute(told or "")


def _absolute(path: str | Path) -> Path:
    """Absolute and without ``..``, but with its links, as the user wrote it."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _folders_of(value: object) -> Iterator[Path]:
    """The folders that a flag names: none, one as text or Path, or a list of them."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _folders_of(item)
    elif isinstance(value, (str, Path)) and str(value).strip():
        yield _absolute(value)


def _shown(folder: Path) -> str:
    """How a folder is called in the list: below the models or data folder by its path, elsewhere by its name alone,
    since visitors need not know where things are on this computer."""
    for base in (_models_folder(), _data_folder()):
        if folder.is_relative_to(base) and folder != base:
            return folder.relative_to(base).as_posix()
    return folder.name or "models"


def _is_tunnelled(flags: object) -> bool:
    demo = getattr(_module("shared"), "demo", None)
    behind_proxy = getattr(demo, "share_url", None) or getattr(demo, "root_path", None) or getattr(flags, "subpath", "")
    return bool(behind_proxy) or any(getattr(flags, flag, None) for flag in _TUNNELS)


def _embeddings_came() -> str:
    """Make the WebUI find new embeddings. Where they belong to the model that is loaded, reading them would load one,
    and could take them away from a picture that is being made; so it is told that its folders have changed, and reads
    them itself before the next picture. Forge lists them for its page, and reads them with the next checkpoint."""
    with contextlib.suppress(Exception):
        database: Any = getattr(getattr(_module("sd_hijack"), "model_hijack", None), "embedding_db", None)
        if database is not None:
            for folder in list(database.embedding_dirs.values()):
                folder.mtime = None
            return ""
        database = getattr(_module("ui_extra_networks_textual_inversion"), "embedding_db", None)
        if database is not None:
            database.load_textual_inversion_embeddings(force_reload=True, sync_with_sd_model=False)
            return "New embeddings take effect with the next checkpoint that is loaded."
    return ""


def _same_file(path: Path, used: object) -> bool:
    if not isinstance(used, (str, Path)) or not str(used):
        return False
    try:
        return path.samefile(used)
    except (OSError, ValueError):
        return os.path.normcase(_absolute(path)) == os.path.normcase(_absolute(used))


def _loaded_checkpoints() -> Iterator[object]:
    sd_models = _module("sd_models")
    data: Any = getattr(sd_models, "model_data", None)
    models = [getattr(data, "sd_model", None), *(getattr(data, "loaded_sd_models", None) or ())]
    infos = [getattr(model, "sd_checkpoint_info", None) for model in models]
    infos += list(getattr(sd_models, "checkpoints_loaded", None) or ())  # state dicts kept for a quick change
    infos.append(_forge_parameters().get("checkpoint_info"))
    for info in infos:
        yield getattr(info, "filename", None)


def _loaded_parts() -> Iterator[object]:
    """VAEs and, in Forge, text encoders: the names there are whole paths."""
    sd_vae = _module("sd_vae")
    yield getattr(sd_vae, "loaded_vae_file", None)
    yield from list(getattr(sd_vae, "checkpoints_loaded", None) or ())
    yield from _forge_parameters().get("additional_modules") or ()


def _forge_parameters() -> dict[str, Any]:
    """What Forge has chosen to load, or has loaded."""
    data = getattr(_module("sd_models"), "model_data", None)
    parameters = getattr(data, "forge_loading_parameters", None)
    return parameters if isinstance(parameters, dict) else {}


def _loaded_loras() -> Iterator[object]:
    networks = sys.modules.get("networks")
    kept = [*(getattr(networks, "loaded_networks", None) or ())]
    kept += list((getattr(networks, "networks_in_memory", None) or {}).values())
    for network in kept:
        yield getattr(getattr(network, "network_on_disk", None), "filename", None)


def _settings_callback() -> None:
    shared: Any = _module("shared")
    for setting in SETTINGS:
        shared.opts.add_option(f"{ELEMENT}_{setting.key}", _option_info(shared.OptionInfo, setting))


def _option_info(option_info: Callable[..., Any], setting: Setting) -> object:
    """The setting as the WebUI declares it: text with choices, switch, or slider."""
    component, arguments = _component(setting)
    info = option_info(setting.default, setting.title, component, arguments, section=SECTION)
    return info.info(setting.explanation) if hasattr(info, "info") else info


def _component(setting: Setting) -> tuple[object, dict[str, object] | None]:
    """The part of the page that the WebUI makes for a setting; None leaves the choice to it."""
    gradio: Any = sys.modules.get("gradio")
    if setting.choices:
        return gradio.Radio, {"choices": list(setting.choices)}
    if setting.most:
        return gradio.Slider, {"minimum": 0, "maximum": setting.most, "step": 1}
    return None, None
