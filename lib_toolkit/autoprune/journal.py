"""The record of what was done: ``journal.jsonl`` in the drop folder, one JSON object a line.

Every line has ``schema``, ``line``, ``run`` (an id) and ``time``. ``line`` is one of:
``begin`` and ``end`` of a run (``end`` with ``state`` and ``reason``); ``intent``: what comes next for a file,
with ``action``, ``target``, ``source_to``, ``sidecars`` (pairs of paths) and the ``step`` as far as it is known;
``step``: what became of a file (``steps.Step``). An intent without a step of the same file behind it was cut short.
A large journal is renamed to ``journal.1.jsonl`` and so on before a run begins; ``journal.0.jsonl`` is one on its way
there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.autoprune.steps import POSTPONED, SCHEMA, WAITING, Run, Step, now, step_of
from lib_toolkit.errors import TargetError
from lib_toolkit.files import open_regular
from lib_toolkit.ways_out import way_out

NAME = "journal.jsonl"
LARGEST = 4 << 20
"""Bytes from which on a journal is put aside."""

KEPT = 9
"""Journals that are put aside at most; older ones go."""

_SYNC_EVERY = 1.0


@dataclass(frozen=True)
class Intent:
    """What was about to be done with a file. ``sidecars``: (from, to), for each file that goes along."""

    file: str
    action: str
    target: str
    source_to: str
    sidecars: tuple[tuple[str, str], ...]
    step: Step
    modified: int

    def as_json(self) -> dict[str, object]:
        return {
            "file": self.file,
            "action": self.action,
            "target": self.target,
            "source_to": self.source_to,
            "sidecars": [list(pair) for pair in self.sidecars],
            "modified": self.modified,
            "step": self.step.as_json(),
        }


class Journal:
    """The journal of a drop folder, open for a run; only one process writes at a time."""

    def __init__(self, folder: Path, run: str) -> None:
        """Open it. Raises TargetError when that is refused."""
        self.path = folder / NAME
        self._run = run
        self._synced = time.monotonic()
        if os.path.exists(self.path) and not os.path.isfile(self.path):  # noqa: PTH110, PTH113 (these never raise)
            raise TargetError(
                f"The journal {self.path} is no regular file, and nothing is done without it; take that away, and "
                "a new one is made."
            )
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with self._told():
            self._fd = os.open(self.path, flags, 0o666)
            size = os.fstat(self._fd).st_size
            # A line that a crash cut off must not swallow the next one.
            if size and _last_byte(self._fd, size) != b"\n":
                os.write(self._fd, b"\n")

    def write(self, line: str, table: Mapping[str, object]) -> None:
        """Add a line. Raises TargetError when the disk is full or fails; then nothing may be begun."""
        whole = {"schema": SCHEMA, "line": line, "run": self._run, "time": now(), **table}
        data = json.dumps(whole).encode() + b"\n"
        with self._told():
            while data:
                data = data[os.write(self._fd, data) :]
            if time.monotonic() - self._synced > _SYNC_EVERY:
                self.sync()

    def intend(self, intent: Intent) -> None:
        """Say what comes next."""
        self.write("intent", intent.as_json())

    def sync(self) -> None:
        """Bring all lines to the disk."""
        with self._told():
            os.fsync(self._fd)
        self._synced = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError, TargetError):
            self.sync()
        os.close(self._fd)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TargetError(
                f"The journal {self.path} cannot be written ({error.strerror}), and nothing is done without it; "
                f"{way_out(error)}."
            ) from None


def _last_byte(fd: int, size: int) -> bytes:
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1)


def rotate(folder: Path, largest: int = LARGEST) -> bool:
    """Put a journal aside that has grown large; True when that was done.

    Windows renames none that another program reads. Those of before are touched only when the large one is on its way,
    and what stops there goes on in a later run.
    """
    path, between = folder / NAME, _aside(folder, 0)
    with contextlib.suppress(OSError):
        if not between.exists():
            if path.stat().st_size < largest:
                return False
            path.rename(between)
        _make_way(folder)
        between.rename(_aside(folder, 1))
        return True
    return False


def _make_way(folder: Path) -> None:
    """Free the number 1: those up to the first gap move on. The oldest goes where there is none."""
    gap = next((number for number in range(1, KEPT + 1) if not _aside(folder, number).exists()), KEPT)
    _aside(folder, gap).unlink(missing_ok=True)
    for number in range(gap - 1, 0, -1):
        _aside(folder, number).rename(_aside(folder, number + 1))


def _aside(folder: Path, number: int) -> Path:
    return folder / f"journal.{number}.jsonl"


def lines(folder: Path) -> Iterator[dict[str, object]]:
    """Every line that can be read, oldest first, from the last journal put aside on."""
    for path in (_aside(folder, 1), _aside(folder, 0), folder / NAME):
        try:
            with open_regular(path) as file:
                for raw in file:
                    try:
                        line = json.loads(raw)
                    except (ValueError, RecursionError):
                        continue
                    if isinstance(line, dict):
                        yield line
        except OSError:
            continue


def unfinished(folder: Path) -> dict[str, Intent]:
    """By file: the last intent that no step followed."""
    found: dict[str, Intent] = {}
    for line in lines(folder):
        file = line.get("file")
        if not isinstance(file, str) or not _can_be_a_path(file):
            continue
        if line.get("line") == "intent":
            found[file] = _intent(file, line)
        elif line.get("line") == "step" and line.get("outcome") not in {POSTPONED, WAITING}:
            found.pop(file, None)
    return found


def _can_be_a_path(text: str) -> bool:
    """Whether any file could be called so: a journal may hold anything."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeError:
        return False


def _intent(file: str, line: Mapping[str, object]) -> Intent:
    texts = (line.get(name) for name in ("action", "target", "source_to"))
    action, target, to = (text if isinstance(text, str) and _can_be_a_path(text) else "" for text in texts)
    pairs, step, modified = line.get("sidecars"), line.get("step"), line.get("modified")
    sidecars = (
        tuple((str(p[0]), str(p[1])) for p in pairs if isinstance(p, list) and len(p) == 2)
        if isinstance(pairs, list)
        else ()
    )
    sidecars = tuple(pair for pair in sidecars if all(map(_can_be_a_path, pair)))
    told = step_of(step) if isinstance(step, dict) else Step(file, "")
    return Intent(file, action, target, to, sidecars, told, modified if isinstance(modified, int) else 0)


def last(folder: Path) -> Run | None:
    """The last run of the journal, ``interrupted`` when its end is missing; None where there was none."""
    run: Run | None = None
    steps: list[Step] = []
    for line in lines(folder):
        what, time_ = line.get("line"), str(line.get("time", ""))
        if what == "begin":
            run, steps = Run(str(line.get("run", "")), "interrupted", time_), []
        elif run is None or line.get("run") != run.id:
            continue
        elif what == "step":
            steps.append(step_of(line))
        elif what == "end":
            run = Run(run.id, str(line.get("state", "done")), run.began, time_, str(line.get("reason", "")))
    if run is None:
        return None
    return Run(run.id, run.state, run.began, run.ended, run.reason, tuple(steps))
