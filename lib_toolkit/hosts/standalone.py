"""The tab without a WebUI: models from one folder with the WebUI's sub-folders, settings from a JSON file in it.

The settings file is ``.model-toolkit.json`` in the models folder, so that a moved or copied folder keeps its
settings; it is read once, when the server starts. Keys: ``precision``, ``format``, ``fix_clip``, ``may_write``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import AUTOPRUNE, CHECKPOINT, COMPONENT, CONTROLNET, LORA, MODEL_SUFFIXES, VAE, Entry
from lib_toolkit.reports.numbers import human_bytes
from lib_toolkit.reports.plain import printable

FOLDERS = {
    CHECKPOINT: "Stable-diffusion",
    VAE: "VAE",
    LORA: "Lora",
    CONTROLNET: "ControlNet",
    COMPONENT: "Components",
    AUTOPRUNE: "Autoprune",
}
"""Sub-folders of the models folder by kind, named as the WebUI does."""

SETTINGS_FILE = ".model-toolkit.json"

_SEPARATOR = " · "
_MOST_FILES = 20_000
_DEEPEST = 16


class StandaloneHost:
    """Models below one folder. Nothing else uses them, so none is ever in use."""

    def __init__(self, models_dir: Path) -> None:
        """Raises UsageError when the folder is not there or its settings file cannot be understood."""
        if not models_dir.is_dir():
            raise UsageError(f"The folder {models_dir} does not exist; name your models folder.")
        self._root = models_dir.resolve()
        self._settings = _read_settings(self._root / SETTINGS_FILE)
        self.build: Callable[[], object] | None = None

    @property
    def name(self) -> str:
        return "standalone"

    @property
    def may_write(self) -> bool:
        return self.setting("may_write", True) is True

    def folders(self, kind: str) -> tuple[Path, ...]:
        return (self.output_folder(kind),)

    def models(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Files in the folders of the table and their sub-folders, and those directly in the models folder."""
        found: list[tuple[Path, str]] = []
        if kind is None:
            found += [(path, "") for path in _model_files(self._root, deep=False)]
        for one in FOLDERS if kind is None else (kind,):
            found += [(path, one) for path in _model_files(self.output_folder(one), deep=True)]
        return self._entries(found[:_MOST_FILES])

    def find(self, value: str) -> Entry:
        entries = self.models()
        without_size = value.rpartition(_SEPARATOR)[0]
        for wanted in (value, without_size):
            for entry in entries:
                if wanted and wanted in {entry.label, entry.name}:
                    return entry
        if not value:
            raise UsageError("No model is chosen; choose one under Source, then press Load.")
        typed = [entry for entry in entries if entry.name.rpartition("/")[2] == value]
        if len(typed) == 1:
            return typed[0]
        if typed:
            names = ", ".join(entry.name for entry in typed[:5])
            raise UsageError(
                f"{printable(value, 200)} stands for {len(typed)} models ({names}); choose one of the list."
            )
        raise UsageError(
            f"{printable(value, 200)} is not among the models of {self._root}: it was moved, renamed or never there; "
            "refresh the list and choose again."
        )

    def refresh(self, kind: str) -> None:
        """Nothing to do: every listing looks at the disk."""

    def output_folder(self, kind: str) -> Path:
        if kind not in FOLDERS:
            raise UsageError(f"{kind!r} is not a kind of model folder; choose {', '.join(FOLDERS)}.")
        return self._root / FOLDERS[kind]

    def setting(self, key: str, default: str | bool) -> str | bool:
        value = self._settings.get(key, default)
        return value if isinstance(value, (str, bool)) and type(value) is type(default) else default

    def in_use(self, path: Path) -> bool:
        return False

    def report_url(self, path: Path) -> str | None:
        return None

    def register(self, build: Callable[[], object]) -> None:
        """Remember ``build``: the server shows it as its only page."""
        self.build = build

    def _entries(self, found: list[tuple[Path, str]]) -> tuple[Entry, ...]:
        """Names are unique: escaping could make two of them alike."""
        entries, taken = [], set()
        for path, kind in sorted(found, key=lambda item: (str(item[0]).casefold(), str(item[0]))):
            try:
                size = path.stat().st_size
            except OSError:
                continue  # it went away, or is a link to nothing
            base = name = printable(path.relative_to(self._root).as_posix())
            number = 2
            while name in taken:
                name, number = f"{base} ({number})", number + 1
            taken.add(name)
            entries.append(Entry(name, f"{name}{_SEPARATOR}{human_bytes(size)}", path, size, kind))
        return tuple(entries)


def _model_files(folder: Path, deep: bool) -> Iterator[Path]:
    """Model files in a folder, and with ``deep`` below it; linked folders are followed, but none is read twice."""
    pending, seen = [(folder, 0)], set()
    while pending:
        here, depth = pending.pop()
        try:
            mark = here.resolve()
            items = list(os.scandir(here)) if mark not in seen else []
        except OSError:
            continue  # absent, no rights, or a loop of links
        seen.add(mark)
        for item in items:
            try:
                is_folder = item.is_dir()
            except OSError:
                continue
            path = here / item.name
            if is_folder:
                if deep and depth < _DEEPEST:
                    pending.append((path, depth + 1))
            elif path.suffix.lower() in MODEL_SUFFIXES and not item.name.startswith("."):
                yield path


def _read_settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The settings in {path} cannot be read ({error}); mend or delete that file.") from None
    if not isinstance(settings, dict):
        raise UsageError(f"The settings in {path} must be one JSON object; mend or delete that file.")
    return settings
