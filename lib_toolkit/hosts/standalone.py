"""The tab without a WebUI: models from one folder with the WebUI's sub-folders, settings from a JSON file in it.

The settings file is ``.model-toolkit.json`` in the models folder, so that a moved or copied folder keeps its
settings; it is read once, when the server starts. Keys: those of the table of settings, ``format`` (of saved
models) and ``may_write``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts import listing
from lib_toolkit.hosts.host import (
    AUTOPRUNE,
    CHECKPOINT,
    COMPONENT,
    CONTROLNET,
    EMBEDDING,
    HYPERNETWORK,
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
from lib_toolkit.hosts.settings import SETTINGS, Value, read_from

FOLDERS = {
    CHECKPOINT: "Stable-diffusion",
    VAE: "VAE",
    LORA: "Lora",
    CONTROLNET: "ControlNet",
    TEXT_ENCODER: "text_encoder",
    COMPONENT: "Components",
    AUTOPRUNE: "Autoprune",
    EMBEDDING: "embeddings",
    UPSCALER: "ESRGAN",
    HYPERNETWORK: "hypernetworks",
}
"""Sub-folders of the models folder by kind, named as the WebUI does."""

SETTINGS_FILE = ".model-toolkit.json"


class StandaloneHost:
    """Models below one folder. Nothing else uses them, so none is ever in use."""

    def __init__(self, models_dir: Path) -> None:
        """Raises UsageError when the folder is not there or its settings file cannot be understood."""
        if not models_dir.is_dir():
            raise UsageError(f"The folder {models_dir} does not exist; name your models folder.")
        self._root = models_dir.resolve()
        self._settings = _read_settings(self._root / SETTINGS_FILE)
        self.build: Callable[[], object] | None = None
        self.started: Callable[[], None] = nothing
        self.ended: Callable[[], None] = nothing

    @property
    def name(self) -> str:
        return "standalone"

    def write_refusal(self, visitor: Visitor) -> str | None:
        """Who may visit at all is decided by the server's guard."""
        if self.setting("may_write", True) is True:
            return None
        return "Saving is switched off here (may_write in the settings); nothing was written."

    def folders(self, kind: str) -> tuple[Path, ...]:
        return (self.output_folder(kind),)

    def models(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Files in the folders of the table and their sub-folders, and those directly in the models folder."""
        if kind is not None and kind not in LISTED:
            return listing.entries_of([self._place(kind)])
        places = [Place(self._root, "", "", deep=False), *(self._place(one) for one in LISTED)]
        entries = listing.entries_of(places)
        return entries if kind is None else tuple(entry for entry in entries if entry.kind == kind)

    def find(self, value: str) -> Entry:
        return listing.find(self.models(), value, str(self._root))

    def refresh(self, kind: str) -> str:
        """Nothing to do: every listing looks at the disk."""
        return ""

    def output_folder(self, kind: str) -> Path:
        if kind not in FOLDERS:
            raise UsageError(f"{kind!r} is not a kind of model folder; choose {', '.join(FOLDERS)}.")
        return self._root / FOLDERS[kind]

    def private(self, text: str) -> str:
        shown = {self.output_folder(kind): name for kind, name in FOLDERS.items()}
        return listing.without_places(text, {**shown, self._root: self._root.name})

    def setting(self, key: str, default: Value) -> Value:
        return read_from(self._settings, key, default)

    def in_use(self, path: Path) -> bool:
        return False

    @property
    def settings_place(self) -> str:
        return f"{SETTINGS_FILE} in the models folder"

    def register(
        self,
        build: Callable[[], object],
        started: Callable[[], None] = nothing,
        ended: Callable[[], None] = nothing,
    ) -> None:
        """Remember them: the server shows what ``build`` makes as its only page, and calls the others."""
        self.build, self.started, self.ended = build, started, ended

    def _place(self, kind: str) -> Place:
        return Place(self.output_folder(kind), kind, FOLDERS[kind])


def _read_settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The settings in {path} cannot be read ({error}); mend or delete that file.") from None
    if not isinstance(settings, dict):
        raise UsageError(f"The settings in {path} must be one JSON object; mend or delete that file.")
    for setting in SETTINGS:
        value = settings.get(setting.key, setting.default)
        if not setting.allows(value):
            raise UsageError(f"The settings in {path} say {setting.key}: {json.dumps(value)}; {setting.told}.")
    return settings
