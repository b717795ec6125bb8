"""What one browser session has loaded and wishes for; nothing of it is shared, and no file is kept open."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from lib_toolkit.edits.precision import PRECISIONS
from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.edits.repair import PositionIds
from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import CHECKPOINT, COMPONENT, CONTROLNET, EMBEDDING, HYPERNETWORK, LORA, UPSCALER, VAE
from lib_toolkit.identify import Identification
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.reports.html import EMPTY, Html
from lib_toolkit.reports.summary import Facts, Preview
from lib_toolkit.ui.drafts import Draft, Taken

if TYPE_CHECKING:
    from lib_toolkit.ui.measuring import Measured
    from lib_toolkit.ui.reporting import Report

AUTO = "auto"
"""The choice of whatever component suits best."""

Purpose: TypeAlias = Literal["load", "preview", "import", "undo", "save", "export", "report", "compare"]

LASTING: Mapping[Purpose, str] = {"save": "saved", "export": "exported", "report": "reported on", "compare": "compared"}
"""Work that is not given up for another click, with the word for it."""

_FOLDER_KINDS = {
    "checkpoint": CHECKPOINT,
    "vae": VAE,
    "lora": LORA,
    "controlnet": CONTROLNET,
    "embedding": EMBEDDING,
    "upscaler": UPSCALER,
    "hypernetwork": HYPERNETWORK,
}
"""Where models go by what they are."""


def folder_kind(kind: str) -> str:
    """The kind of folder for models of a kind; what has none of its own goes to the components."""
    return _FOLDER_KINDS.get(kind, COMPONENT)


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
        if not isinstance(self.name, str | None):
            raise UsageError("A name is a text; choose one and type it under Name.")
        return replace(self, name=(self.name or "").strip())

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.precision, self.keep_ema is True, self.fix_clip is True, self.drop_unknown is True)


@dataclass(frozen=True)
class Loaded:
    """What a session has looked at: the draft, and what it is with all of its edits. Its files are closed.

    ``missing`` are the classes that it lacks, ``keeps_unknown`` tells that a save keeps the unknown tensors.
    ``figures`` are those of the metric that are defined for it, with the bytes to be read for each.
    """

    draft: Draft
    found: Identification
    facts: Facts
    position_ids: tuple[PositionIds, ...]
    keeps_unknown: bool
    missing: tuple[str, ...] = ()
    figures: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages."""
        return self.draft.name

    @property
    def folder_kind(self) -> str:
        """The kind of folder that a copy of it belongs in."""
        return CHECKPOINT if self.draft.is_new else folder_kind(self.found.kind)

    @property
    def incomplete(self) -> bool:
        """Whether edits, or a new beginning, leave it without parts that it needs."""
        return bool(self.missing) and (self.draft.is_new or bool(self.draft.edits))


@dataclass(frozen=True)
class Opened:
    """What a look gives: the model, the preview of the first wishes, and the tree of its tensors. ``after`` is what
    made it necessary; after an import ``told`` says what came in."""

    loaded: Loaded
    preview: Preview
    tree: Html = EMPTY
    after: Purpose = "load"
    told: str = ""


@dataclass(frozen=True)
class Aim:
    """What the Advanced panel points at, each one of the choices that it offers; empty before a model is loaded."""

    architecture: str = ""
    cls: str = ""
    component: str = AUTO
    import_component: str = AUTO


@dataclass(frozen=True)
class Reported:
    """A finished report, and the file that it is of."""

    report: Report
    source: Taken


@dataclass(frozen=True)
class Running:
    """The job that a session waits for."""

    job: str
    purpose: Purpose
    subject: str


@dataclass
class Session:
    """One browser session. Whoever reads or changes it holds ``lock``.

    ``saved`` is the draft that was saved last, ``asked`` what a second click is awaited for, ``aim`` what the Advanced
    panel points at, ``measuring`` the job that computes the metric, ``watched`` the autoprune run or its preview (no
    job of this session) that the page tells of. ``refusal`` is what a click was told while a job
    ran, with the time until which the job's own progress line gives way to it.
    """

    wishes: Wishes = field(default_factory=Wishes)
    file_format: str = "safetensors"
    name: str = ""
    proposed: str = ""
    loaded: Loaded | None = None
    preview: Preview | None = None
    saved: Draft | None = None
    asked: Hashable = None
    aim: Aim = field(default_factory=Aim)
    report: Reported | None = None
    measured: Measured | None = None
    measuring: str = ""
    watched: str = ""
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
        self.loaded = self.preview = self.saved = self.report = self.measured = None
        self.asked = None
        self.name = self.proposed = ""
        self.aim = Aim()
        self.stale = False

    @property
    def tensors(self) -> int:
        """Tensors of what is loaded, which are what a session takes memory for."""
        return self.loaded.facts.tensors if self.loaded is not None else 0

    @property
    def metric(self) -> Measured | None:
        """The metric of what is loaded, where it is known."""
        known = self.measured
        return known if known is not None and self.loaded is not None and known.draft == self.loaded.draft else None

    @property
    def unsaved(self) -> bool:
        """Whether something was changed in memory that stands in no file yet."""
        return self.loaded is not None and bool(self.loaded.draft.edits) and self.loaded.draft != self.saved


class Workspace:
    """The sessions of a server: at most ``most``, with ``tensors`` in all, and none unused for longer than ``seconds``.

    What goes first is what was not used for the longest time; the session in use and those that work stay.
    """

    def __init__(self, most: int = 32, seconds: float = 12 * 3600.0, tensors: int = 200_000) -> None:
        self._most = most
        self._tensors = tensors
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
            self._lighten(session)
            return key, session

    def _lighten(self, used: Session) -> None:
        """Let models go that nobody has looked at for long."""
        total = sum(session.tensors for session in self._sessions.values())
        for key in sorted(self._sessions, key=lambda key: self._sessions[key].used):
            session = self._sessions[key]
            if total > self._tensors and session is not used and session.running is None:
                total -= session.tensors
                del self._sessions[key]

    def _make_room(self) -> None:
        by_age = sorted(self._sessions, key=lambda key: self._sessions[key].used)
        idle = [key for key in by_age if self._sessions[key].running is None]
        for key in (idle or by_age)[: max(0, len(by_age) - self._most + 1)]:
            del self._sessions[key]
