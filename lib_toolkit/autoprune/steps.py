"""What Autoprune says while it works and remembers afterwards: one step for each file, and the run they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone

SCHEMA = 1

BEGUN, WRITTEN, MOVED, DUPLICATE, HAS_FAILED = "begun", "written", "moved", "duplicate", "failed"
POSTPONED, WAITING, LEFT, PLANNED = "postponed", "waiting", "left", "planned"

OUTCOMES: Mapping[str, str] = {
    BEGUN: "work on the file has begun; another step follows",
    WRITTEN: "a clean copy stands in its folder",
    MOVED: "nothing was to be done: the file itself was moved to its folder, byte for byte",
    DUPLICATE: "the result would equal a model that is there already; nothing was written, left out or changed",
    HAS_FAILED: "it cannot be used, and lies in Failed beside a text that says why",
    POSTPONED: "the system would not read it, or its place not have it; it lies where it lay and is tried again",
    WAITING: "it is still being copied or downloaded, or its turn has not come",
    LEFT: "it is no regular model file, and was left alone",
    PLANNED: "what would be done (dry run)",
}
"""The values of ``Step.outcome``."""

DEALT_WITH = frozenset({WRITTEN, MOVED, DUPLICATE, HAS_FAILED})


@dataclass(frozen=True)
class Removed:
    """Tensors or entries that were left out for one reason."""

    reason: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Altered:
    """How many tensors were changed in one way."""

    what: str
    count: int


@dataclass(frozen=True)
class Step:
    """What became of one file.

    ``file`` is its path below the drop folder, with ``/``. ``reason`` is one sentence. ``target`` is the path of the
    result, of the equal model for a duplicate, of the file in Failed for a failure; empty where there is none.
    ``source`` is where the source lies now (below the drop folder), empty when it was moved away or deleted.
    ``hashes`` are those of the whole source, ``target_hashes`` those of the result. ``sidecars`` are the paths of
    the files that went along. ``recovered``: the work was begun by a run that did not end. ``foreseen``: of a planned
    step, the outcome that a run would have.
    """

    file: str
    outcome: str
    size: int = 0
    time: str = ""
    reason: str = ""
    architecture: str = ""
    kind: str = ""
    target: str = ""
    target_size: int = 0
    source: str = ""
    removed: tuple[Removed, ...] = ()
    changed: tuple[Altered, ...] = ()
    findings: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    hashes: Mapping[str, str | None] = field(default_factory=dict)
    target_hashes: Mapping[str, str | None] = field(default_factory=dict)
    recovered: bool = False
    foreseen: str = ""

    @property
    def saved(self) -> int:
        """Bytes by which the result is smaller than the source."""
        return self.size - self.target_size if self.outcome in {WRITTEN, PLANNED} and self.target_size else 0

    def as_json(self) -> dict[str, object]:
        """Every field, and ``saved``; ``json.dumps`` of it is one line."""
        told = {name: getattr(self, name) for name in _FIELDS}  # asdict copies all that is inside, which takes long
        told |= {name: [asdict(one) for one in told[name]] for name in ("removed", "changed")}
        return {"step": self.outcome, **told, "saved": self.saved}


_FIELDS = tuple(one.name for one in fields(Step))


@dataclass(frozen=True)
class Run:
    """One run over the drop folder.

    ``state``: ``done``, ``cancelled``, ``busy`` (another run works on this folder; nothing was done), ``stopped``
    (``reason`` says why), and, for the last one in the journal, ``running`` or ``interrupted``. ``kept``: sources that
    were dealt with before and stay in the drop folder, for which there is no step.
    """

    id: str
    state: str
    began: str
    ended: str = ""
    reason: str = ""
    steps: tuple[Step, ...] = ()
    kept: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of files by outcome."""
        return dict(Counter(step.outcome for step in self.steps))

    @property
    def saved(self) -> int:
        """Bytes saved by all files together."""
        return sum(step.saved for step in self.steps)

    def as_json(self) -> dict[str, object]:
        """The run without its steps, as the last line of ``--json``."""
        told = {name: getattr(self, name) for name in ("id", "state", "began", "ended", "reason", "kept")}
        return {"run": told, "counts": self.counts, "saved": self.saved}


def step_of(table: Mapping[str, object]) -> Step:
    """The step of its JSON form; fields that are missing or of another kind take their defaults."""
    known = {one.name: table[one.name] for one in fields(Step) if one.name in table}
    texts = {name: _text(known.get(name)) for name in _TEXTS}
    return Step(
        **texts,
        size=_count(known.get("size")),
        target_size=_count(known.get("target_size")),
        removed=tuple(
            Removed(_text(one.get("reason")), _count(one.get("count")), _count(one.get("bytes")))
            for one in _tables(known.get("removed"))
        ),
        changed=tuple(
            Altered(_text(one.get("what")), _count(one.get("count"))) for one in _tables(known.get("changed"))
        ),
        findings=_list(known.get("findings")),
        sidecars=_list(known.get("sidecars")),
        hashes=_hashes(known.get("hashes")),
        target_hashes=_hashes(known.get("target_hashes")),
        recovered=known.get("recovered") is True,
    )


def run_of(table: Mapping[str, object], steps: tuple[Step, ...] = ()) -> Run:
    """The run of its JSON form, without its steps, and these steps."""
    texts = {name: _text(table.get(name)) for name in ("id", "state", "began", "ended", "reason")}
    return Run(**texts, steps=steps, kept=_count(table.get("kept")))


_TEXTS = ("file", "outcome", "time", "reason", "architecture", "kind", "target", "source", "foreseen")


_BEYOND = 1 << 63
"""What no file system can count."""


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _BEYOND else 0


def _tables(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _list(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _hashes(value: object) -> dict[str, str | None]:
    if not isinstance(value, dict):
        return {}
    return {key: one for key, one in value.items() if isinstance(one, str) or one is None}
