"""A model in the making, as data: what it began with, and what was put into it since.

Nothing is kept open: whoever needs the model builds it again from the files, each of which must still be what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from lib_toolkit.edits.components import Candidate, import_component, missing_classes, new_plan
from lib_toolkit.edits.recipes import Wishes, prune_plan
from lib_toolkit.errors import FormatError
from lib_toolkit.formats import open_model
from lib_toolkit.hosts.host import Entry
from lib_toolkit.identify import Identification, identify
from lib_toolkit.model import Model
from lib_toolkit.plan import Plan, plan_of

Stamp: TypeAlias = "tuple[int, int, int]"
"""Size, time of change in ns, and inode: a file with the same stamp is taken for the same."""

_SAID = frozenset({"fp16", "bf16", "fp32"})


@dataclass(frozen=True)
class Taken:
    """A file of the listing as it was when it was taken."""

    entry: Entry
    stamp: Stamp

    def check(self) -> None:
        """Raise FormatError when the file is not the one that was taken."""
        if stamp_of(self.entry.path) != self.stamp:
            raise FormatError(f"{self.entry.path.name} was changed since it was loaded; load it again.")


@dataclass(frozen=True)
class Import:
    """A component that was put in: of class ``cls``, from ``source``, ``component`` of it or ``auto``. ``told`` says
    in a sentence which one that was, and why."""

    cls: str
    component: str
    source: Taken
    told: str = ""


@dataclass(frozen=True)
class Draft:
    """What a session works on: a file, or a new model of the architecture with the name ``begun``; and its edits."""

    begun: Taken | str
    edits: tuple[Import, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return self.begun if isinstance(self.begun, str) else self.begun.entry.path.name

    @property
    def stem(self) -> str:
        """What the name of a result begins with."""
        if isinstance(self.begun, Taken):
            return self.begun.entry.path.stem
        return "new-" + self.begun.rpartition(" ")[2]

    @property
    def is_new(self) -> bool:
        return isinstance(self.begun, str)

    @property
    def files(self) -> tuple[Taken, ...]:
        """Every file that it reads from, each once."""
        begun = () if isinstance(self.begun, str) else (self.begun,)
        return tuple(dict.fromkeys((*begun, *(edit.source for edit in self.edits))))

    def check(self) -> None:
        """Raise FormatError, naming the file, when one of them is not what it was."""
        for taken in self.files:
            taken.check()


@dataclass(frozen=True)
class Built:
    """A draft with its files open. ``plan`` has all edits and no other change; ``found`` is what it makes;
    ``missing`` are classes that it still lacks; ``chosen`` is what the last edit has put in."""

    draft: Draft
    plan: Plan
    model: Model
    found: Identification
    missing: tuple[str, ...]
    chosen: Candidate | None = None

    def pruned(self, wishes: Wishes) -> Plan:
        """The plan that a save with these wishes carries out."""
        return prune_plan(self.plan, self.found, wishes)


def stamp_of(path: Path) -> Stamp:
    """What the file is now. Raises FormatError when it is not there."""
    try:
        status = path.stat()
    except OSError:
        raise FormatError(
            f"{path.name} is not there any more: it was moved, renamed or deleted; refresh the list."
        ) from None
    return status.st_size, status.st_mtime_ns, status.st_ino


def take(entry: Entry) -> Taken:
    """The file as it is now. Raises FormatError when it is not there."""
    return Taken(entry, stamp_of(entry.path))


@contextmanager
def building(draft: Draft, precision: str, known: Identification | None = None) -> Iterator[Built]:
    """Open the draft's files, put the model together, and close them again.

    ``precision`` is what the result is meant to have: components are cast to it but once. ``known`` is what the
    draft is, where that was found out before. Raises FormatError when a file is not what it was, UsageError when an
    edit cannot be.
    """
    draft.check()
    with ExitStack() as stack:
        opened: dict[Taken, Model] = {}

        def model_of(taken: Taken) -> Model:
            if taken not in opened:
                opened[taken] = stack.enter_context(open_model(taken.entry.path))
            return opened[taken]

        plan = new_plan(draft.begun) if isinstance(draft.begun, str) else plan_of(model_of(draft.begun))
        wanted = _precision(precision, plan.is_new)
        chosen: Candidate | None = None
        for edit in draft.edits:
            source = model_of(edit.source)
            found = identify(plan.as_model())
            plan, chosen = import_component(plan, found, edit.cls, source, identify(source), edit.component, wanted)
        model = plan.source if not draft.edits else _as_edited(plan)
        found = known or identify(model)
        missing = missing_classes(plan, found) if draft.edits or draft.is_new else found.missing_classes
        yield Built(draft, plan, model, found, missing, chosen)
    draft.check()


def _precision(wished: str, is_new: bool) -> str:
    """At which precision a component comes in, so that a wish for the whole model finds it unrounded."""
    return wished if wished in _SAID or (is_new and wished == "keep") else "auto"


def _as_edited(plan: Plan) -> Model:
    """The edited model. What the file says about its own state is said by the plan's warnings already."""
    return replace(plan.as_model(), notes=())
