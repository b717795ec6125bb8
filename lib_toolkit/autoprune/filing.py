"""The steps around a result: its sidecars follow, its source goes where the policy wants it, a failure is explained."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from lib_toolkit.autoprune.looking import SUFFIXES, Found, looks_into, sight
from lib_toolkit.autoprune.moving import copy_new, is_copy, make_folder, move_new, remove, remove_source
from lib_toolkit.autoprune.naming import Group, Names, free_group, note, usable
from lib_toolkit.autoprune.policy import DONE, FAILED
from lib_toolkit.autoprune.sidecars import Sidecar, models_of
from lib_toolkit.autoprune.steps import now
from lib_toolkit.errors import TargetError, ToolkitError
from lib_toolkit.reports.plain import printable
from lib_toolkit.temporary import TemporaryFile

_WHY = ".why.txt"

Intend = Callable[[Group], None]


def make_place(folder: Path, drop: Path) -> None:
    """Make the folder where something goes. Raises TargetError when the system refuses, and as ``check_place`` does."""
    check_place(folder, drop)
    make_folder(folder)


def check_place(folder: Path, drop: Path) -> None:
    """Raise TargetError when a link leads back to where sources lie: what went there would be dealt with again in each
    run."""
    if looks_into(folder, drop):
        raise TargetError(
            f"{folder} leads into the drop folder through a link, so that nothing can be filed there; remove the link, "
            "or let it lead elsewhere."
        )


def place_model(found: Found, drop: Path, group: Group, intend: Intend, copy: bool) -> Group:
    """Bring the file itself to the group's folder, under its first number that is free. Raises TargetError and, for
    a copy, what reading raises."""
    make_place(group.folder, drop)
    return _named(Names(group), intend, partial(copy_new if copy else move_new, found.path))


def follow(group: Group, source: Path, copies: bool, intend: Intend) -> tuple[Group, tuple[str, ...]]:
    """Bring the sidecars beside the model, which is in place; returns the group as it ended up, and what went wrong.

    Is a name taken meanwhile, model and sidecars go on to the next free number together. ``copies``: the sidecars
    stay where they are, too; so do those that another model than ``source`` shares.
    """
    names = Names(group)
    while True:
        placed: list[tuple[Sidecar, bool]] = []
        troubles: list[str] = []
        for sidecar in group.sidecars:
            copy = copies or is_shared(sidecar, source)
            try:
                if bring(sidecar.path, group.place(sidecar), copy):
                    placed.append((sidecar, copy))
            except FileExistsError:
                break
            except (ToolkitError, OSError) as error:
                troubles.append(f"{sidecar.path.name} could not follow: {error}")
        else:
            return group, tuple(troubles)
        for sidecar, copied in placed:
            remove(group.place(sidecar)) if copied else move_new(group.place(sidecar), sidecar.path)
        try:
            names.refuse(group)
            group = _named(names, intend, partial(move_new, group.model))
        except TargetError as error:
            return group, tuple(f"{sidecar.path.name} could not follow: {error}" for sidecar in group.sidecars)


def dispose(found: Found, drop: Path, along: tuple[Sidecar, ...] = ()) -> str:
    """Move the source to Done, with what goes ``along``; returns where it lies then. Raises TargetError."""
    group = aside(found, drop, DONE, along)
    group = place_model(found, drop, group, lambda group: None, copy=False)
    group, _ = follow(group, found.path, False, lambda group: None)
    return group.model.relative_to(drop).as_posix()


def aside(found: Found, drop: Path, where: str, along: tuple[Sidecar, ...] = ()) -> Group:
    """The place of a file in Done or Failed, which mirror the sub-folders of the drop folder."""
    stem = usable(found.path.stem, found.path.suffix, (*along, Sidecar(Path(), _WHY, True)))
    group = Group(drop / where / found.folder, stem, found.path.suffix, along)
    return free_group(group, more=lambda name: (_text_name(name),) if where == FAILED else ())


def explain(model: Path, reason: str) -> tuple[str, ...]:
    """Write the text beside a file in Failed; returns what went wrong."""
    path = model.with_name(_text_name(model.name))
    text = (
        f"{printable(model.name)} could not be used ({now()}).\n\n{printable(reason)}\n\n"
        "The file itself was not changed, and nothing in it was run. A sound copy of it may be put into "
        "the drop folder at any time.\n"
    )
    data = text.encode("utf-8", "backslashreplace")
    try:
        with TemporaryFile(path) as file:
            file.write_at(0, memoryview(data))
            file.commit()
    except TargetError as error:
        return (f"The text that says why could not be written: {error}",)
    return ()


def has_text(model: Path) -> bool:
    """Whether the file in Failed is explained."""
    return model.with_name(_text_name(model.name)).exists()


def _text_name(name: str) -> str:
    # An ending that no sidecar has: put back into the drop folder with its model, it does not follow that.
    return f"{name}{_WHY}"


def bring(path: Path, final: Path, copy: bool) -> bool:
    """Move or copy a sidecar; False where the same bytes stand there already, as after a crash. Raises
    FileExistsError for other bytes."""
    try:
        (copy_new if copy else move_new)(path, final)
    except FileExistsError:
        mark = sight(path)
        if not is_copy(final, path):
            raise
        if not copy:
            remove_source(path, final, mark)
        return False
    return True


def is_shared(sidecar: Sidecar, source: Path) -> bool:
    """Whether another model that it belongs to still waits beside it."""
    named = {*models_of(sidecar.path, SUFFIXES), *(source.with_name(name) for name in sidecar.others)}
    twins = {twin.name for twin in named if twin != source and _is_file(twin)}
    if not twins:
        return False
    try:
        # Where case does not matter, the source is found by its own name in other letters too, but is listed once.
        return not twins.isdisjoint(os.listdir(source.parent))  # noqa: PTH208 (names are all that counts)
    except OSError:
        return True


def _is_file(path: Path) -> bool:
    """Whether a regular file lies there: folders may have a model's name, and links are left alone."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _named(names: Names, intend: Intend, move: Callable[[Path], None]) -> Group:
    """Bring the model to the first of the names that is free."""
    while True:
        group = names.free()
        intend(group)
        with suppress(FileExistsError):
            move(group.model)
            note(group)
            return group
        names.refuse(group)
