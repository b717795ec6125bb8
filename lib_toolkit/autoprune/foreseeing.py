"""What a run would do with a file, told without doing it: the dry run's part of ``processing``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_toolkit.autoprune.duplicates import About, Known, describe
from lib_toolkit.autoprune.filing import check_place
from lib_toolkit.autoprune.looking import Found, is_fresh, unchanged
from lib_toolkit.autoprune.naming import free_group
from lib_toolkit.autoprune.policy import FAILED, Policy
from lib_toolkit.autoprune.refusals import Room
from lib_toolkit.autoprune.sketching import (
    MAY_COME,
    blank,
    group_of,
    named,
    placed,
    refused,
    told,
    unwritten,
    why_kept,
)
from lib_toolkit.autoprune.sorting import judge
from lib_toolkit.autoprune.steps import DUPLICATE, HAS_FAILED, LEFT, MOVED, PLANNED, POSTPONED, WAITING, WRITTEN, Step
from lib_toolkit.errors import CancelledError, IncompleteError, TargetError, ToolkitError, UnreadableError
from lib_toolkit.formats import open_model
from lib_toolkit.progress import Progress


@dataclass
class Promised:
    """What a dry run has said of the files before: the names that they would get, each as ``Group.places`` has it; by
    their folders and what ``duplicates`` should know of them, the models; and the room that they would take."""

    names: set[Path] = field(default_factory=set)
    models: dict[tuple[Path, About], Path] = field(default_factory=dict)
    room: Room = field(default_factory=Room)


def preview(found: Found, policy: Policy, known: Known, progress: Progress, promised: Promised) -> Step:
    """What ``work`` would do with a file; nothing is changed and little is read. What is promised to it is added."""
    try:
        with open_model(found.path) as model:
            verdict = judge(model, policy)
            step = told(blank(found, PLANNED), verdict)
            planned = verdict.plan.as_model()
            about = describe(planned)
            equal = known.equal_to(planned, about, verdict.folder, progress)
            if equal is not None and (why := why_kept(equal, found)):
                return replace(unwritten(step, verdict), reason=f"It would be left: {why}", foreseen=LEFT)
            if equal is not None:
                reason = f"{equal.name} holds the same already."
                return replace(unwritten(step, verdict), target=str(equal), reason=reason, foreseen=DUPLICATE)
            if first := promised.models.get((verdict.folder, about)):
                reason = (
                    f"It seems to hold the same as what would be {first.name}; a run reads both, and writes nothing if "
                    "it does."
                )
                return replace(unwritten(step, verdict), target=str(first), reason=reason, foreseen=DUPLICATE)
            size = found.size
            if not verdict.as_it_is:
                size = verdict.plan.predicted_size(verdict.file_format, hash_source=True)
            group = free_group(group_of(found, verdict))
            while not promised.names.isdisjoint(group.places):
                group = free_group(group, group.number + 1)
            stays = policy.sources == "keep" or not (verdict.as_it_is or policy.sources == "delete")
            check_place(group.folder, policy.real_drop)
            promised.room.take(group.model, size, found.path, stays, verdict.as_it_is)
            reason = "It needs nothing and would be moved as it is." if verdict.as_it_is else ""
            promised.names.update(group.places)
            promised.models[verdict.folder, about] = group.model
            places = tuple(str(group.place(one)) for one in group.sidecars)
            step = replace(step, foreseen=MOVED if verdict.as_it_is else WRITTEN)
            return replace(placed(step, group, ()), target_size=size, reason=reason, sidecars=places)
    except CancelledError:
        raise
    except (UnreadableError, TargetError) as error:
        return _postponed(found, named(error, found))
    except OSError as error:
        return _postponed(found, refused(error))
    except ToolkitError as error:
        if not unchanged(found):
            return blank(found, WAITING, "It was changed or taken away while it was read.")
        if isinstance(error, IncompleteError) and is_fresh(found):
            return blank(found, WAITING, MAY_COME)
        reason = f"It would go to {FAILED}: {named(error, found)}"
        return replace(blank(found, PLANNED, reason), foreseen=HAS_FAILED)


def _postponed(found: Found, why: str) -> Step:
    return replace(blank(found, PLANNED, f"It would stay: {why}"), foreseen=POSTPONED)
