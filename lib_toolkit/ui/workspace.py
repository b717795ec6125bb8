"""What one browser session has loaded and wishes for; nothing of it is shared, and no file is kept open."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from lib_toolkit.edits.precision import PRECISIONS
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.edits.repair import PositionIds, position_ids
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.hosts.host import CHECKPOINT, COMPONENT, CONTROLNET, LORA, VAE, Entry
from lib_toolkit.identify import Identification, identify
from lib_toolkit.model import Model
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.progress import Progress
from lib_toolkit.reports.summary import Facts, Preview, facts_of, preview_of, saved_by_half
from lib_toolkit.target import free_name

Stamp: TypeAlias = "tuple[int, int, int]"
"""Size, time of change in ns, and inode: a file with the same stamp is taken for the same."""

Purpose: TypeAlias = Literal["load", "preview", "save"]

FOLDER_KINDS = {"checkpoint": CHECKPOINT, "vae": VAE, "lora": LORA, "controlnet": CONTROLNET}
"""Where models go by what they are; everything else goes to the components."""


@dataclass(frozen=True)
class Controls:
    """The values of the page's controls as the browser sent them, still to be checked."""

    name: str = ""
    precision: str = "auto"
    file_format: str = "safetensors"
    keep_ema: bool = False
    fix_clip: bool = False
    drop_unknown: bool = False

    def checked(self) -> Controls:
        """Themselves. Raises UsageError for a value that the page does not offer."""
        for value, table, noun in ((self.precision, PRECISIONS, "precision"), (self.file_format, SUFFIXES, "format")):
            if not isinstance(value, str) or value not in table:
                raise UsageError(f"{str(value)[:40]!r} is not a {noun}; choose {', '.join(table)}.")
        return replace(self, name=str(self.name or "").strip())

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.precision, self.keep_ema is True, self.fix_clip is True, self.drop_unknown is True)


@dataclass(frozen=True)
class Loaded:
    """A model that a session has looked at. The file is closed; ``stamp`` tells whether it is still the same."""

    entry: Entry
    stamp: Stamp
    found: Identification
    facts: Facts
    position_ids: tuple[PositionIds, ...]
    keeps_unknown: bool

    @property
    def folder_kind(self) -> str:
        """The kind of folder that a copy of it belongs in."""
        return FOLDER_KINDS.get(self.found.kind, COMPONENT)


@dataclass(frozen=True)
class Opened:
    """What a load gives: the model and the preview of the first wishes."""

    loaded: Loaded
    preview: Preview


@dataclass(frozen=True)
class Running:
    """The job that a session waits for."""

    job: str
    purpose: Purpose
    subject: str


@dataclass
class Session:
    """One browser session. Whoever reads or changes it holds ``lock``. ``refusal`` is what a click was told while
    a job ran, with the time until which the job's own progress line gives way to it."""

    wishes: Wishes = field(default_factory=Wishes)
    file_format: str = "safetensors"
    name: str = ""
    proposed: str = ""
    loaded: Loaded | None = None
    preview: Preview | None = None
    running: Running | None = None
    stale: bool = False
    refusal: tuple[str, float] = ("", 0.0)
    step: int = 0
    used: float = field(default_factory=time.monotonic)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def take(self, controls: Controls) -> None:
        """Wish for what the controls say."""
        self.name, self.wishes, self.file_format = controls.name, controls.wishes, controls.file_format

    def forget(self) -> None:
        """Back to the state of a fresh session."""
        self.loaded = self.preview = None
        self.name = self.proposed = ""
        self.stale = False


class Workspace:
    """The sessions of a server, at most ``most`` and none unused for longer than ``seconds``."""

    def __init__(self, most: int = 32, seconds: float = 12 * 3600.0) -> None:
        self._most = most
        self._seconds = seconds
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def session(self, key: str | None, fresh: Session | None = None) -> tuple[str, Session]:
        """The session of a key; a new one (``fresh``), with a new key, where the key is not, or no longer, known."""
        now = time.monotonic()
        with self._lock:
            for old, session in list(self._sessions.items()):
                if now - session.used > self._seconds and session.running is None:
                    del self._sessions[old]
            if key is None or key not in self._sessions:
                key = secrets.token_urlsafe(24)
                self._make_room()
                self._sessions[key] = fresh or Session()
            session = self._sessions[key]
            session.used = now
            return key, session

    def _make_room(self) -> None:
        by_age = sorted(self._sessions, key=lambda key: self._sessions[key].used)
        idle = [key for key in by_age if self._sessions[key].running is None]
        for key in (idle or by_age)[: max(0, len(by_age) - self._most + 1)]:
            del self._sessions[key]


def stamp_of(path: Path) -> Stamp:
    """What the file is now. Raises FormatError when it is not there."""
    try:
        status = path.stat()
    except OSError:
        raise FormatError(
            f"{path.name} is not there any more: it was moved, renamed or deleted; refresh the list."
        ) from None
    return status.st_size, status.st_mtime_ns, status.st_ino


def check_unchanged(loaded: Loaded) -> None:
    """Raise FormatError when the file is not the one that was loaded."""
    if stamp_of(loaded.entry.path) != loaded.stamp:
        raise FormatError(f"{loaded.entry.path.name} was changed since it was loaded; load it again.")


def load(entry: Entry, wishes: Wishes, file_format: str, progress: Progress) -> Opened:
    """Open a model, say what it is, and preview the wishes; the file is closed again."""
    progress.start(f"opening {entry.path.name}", 0)
    stamp = stamp_of(entry.path)
    with open_model(entry.path) as model:
        progress.start(f"identifying {entry.path.name}", 0)
        found = identify(model)
        progress.check()
        unknown = {left.key for left in found.leftovers.unknown}
        usual = plan_prune(model, found, Wishes("keep"))
        loaded = Loaded(
            entry,
            stamp,
            found,
            facts_of(model),
            position_ids(model, found),
            keeps_unknown=any(key in usual.tensors for key in unknown),
        )
        progress.check()
        preview = _preview(model, loaded, wishes, file_format)
    check_unchanged(loaded)
    return Opened(loaded, preview)


def preview(loaded: Loaded, wishes: Wishes, file_format: str, progress: Progress) -> Preview:
    """What a save with these wishes comes to. Raises FormatError when the file is not the one that was loaded."""
    progress.start(f"planning {loaded.entry.path.name}", 0)
    check_unchanged(loaded)
    with open_model(loaded.entry.path) as model:
        return _preview(model, loaded, wishes, file_format)


def _preview(model: Model, loaded: Loaded, wishes: Wishes, file_format: str) -> Preview:
    found = loaded.found
    half_saves = saved_by_half(plan_prune(model, found, replace(wishes, precision="keep")), found)
    return preview_of(model, found, plan_prune(model, found, wishes), file_format, half_saves)


_WORDS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}


def propose_name(loaded: Loaded, preview: Preview, file_format: str, folder: Path) -> str:
    """A name, without its ending, that says what was done and does not exist yet in the folder."""
    stem, kind = loaded.entry.path.stem, ""
    if stem.lower().endswith(".vae"):
        stem, kind = stem[:-4], stem[-4:]  # name.vae.safetensors is how WebUIs tell VAEs
    targets = {group.what.partition("→ ")[2] for group in preview.changed}
    done = ["pruned"] if preview.dropped else []
    done += [word for kind_of, word in _WORDS.items() if kind_of in targets]
    if not done:
        done = ["fixed" if preview.changed else "copy"]
    ending = SUFFIXES[file_format]
    free = free_name(folder, "-".join([stem, *done]) + kind, ending)
    return free.name.removesuffix(ending)
