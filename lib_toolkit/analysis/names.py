"""The names that users give to fingerprints, in a small JSON file beside their other settings.

``fingerprints.json`` in the folder that the environment variable MODEL_TOOLKIT_CONFIG names, else in
``model-toolkit`` below %APPDATA% (Windows), $XDG_CONFIG_HOME, or ``~/.config``. Its content:
{"schema": 1, "names": {"<fingerprint>": "<name>", …}}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lib_toolkit.errors import TargetError, UsageError

FILE = "fingerprints.json"
SCHEMA = 1
_LONGEST = 200


def config_folder() -> Path:
    """Where this user's settings live; the folder need not be there."""
    if own := os.environ.get("MODEL_TOOLKIT_CONFIG"):
        return Path(own)
    for variable in ("APPDATA",) if os.name == "nt" else ("XDG_CONFIG_HOME",):
        if base := os.environ.get(variable):
            return Path(base) / "model-toolkit"
    return Path.home() / ".config" / "model-toolkit"


def read_names(folder: Path | None = None) -> dict[str, str]:
    """Name by fingerprint; empty where none was given yet. Raises UsageError for a file that cannot be understood."""
    path = (folder or config_folder()) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The names in {path} cannot be read ({error}); mend or delete that file.") from None
    names = content.get("names") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UsageError(f"The names in {path} must be one JSON object of fingerprints and names; mend or delete it.")
    return names


def checked_name(name: str) -> str:
    """``name`` without blanks around it. Raises UsageError for one that cannot be shown."""
    name = name.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise UsageError(f"A name must be 1 to {_LONGEST} printable characters, such as 'NAI VAE'.")
    return name


def give_name(fingerprint: str, name: str, folder: Path | None = None) -> Path:
    """Remember ``name`` for ``fingerprint``, in place of an earlier one; returns the file that holds it.

    Raises UsageError for an unusable name or an unreadable file, TargetError when the file cannot be written.
    """
    folder = folder or config_folder()
    names = {**read_names(folder), fingerprint: checked_name(name)}
    return _save(folder / FILE, names)


def _save(path: Path, names: Mapping[str, str]) -> Path:
    text = json.dumps({"schema": SCHEMA, "names": dict(sorted(names.items()))}, indent=2, ensure_ascii=False)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TargetError(f"The name cannot be kept in {path}: {error.strerror}; check the folder.") from None
    return path
