"""Looking at a draft: what it is, what a save comes to, and under which name. Headers alone are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.edits.repair import position_ids
from lib_toolkit.errors import UsageError
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.progress import Progress
from lib_toolkit.reports.html import EMPTY
from lib_toolkit.reports.summary import Preview, facts_of, preview_of, saved_by_half
from lib_toolkit.reports.tensor_tree import rows_of, tree_html
from lib_toolkit.target import free_name
from lib_toolkit.ui import measuring
from lib_toolkit.ui.drafts import Built, Draft, Import, building
from lib_toolkit.ui.workspace import Loaded, Opened

_WORDS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}
_FORMER = "part of "
"""How the reason begins for which an import leaves out what was there before."""


def look(draft: Draft, wishes: Wishes, file_format: str, progress: Progress) -> Opened:
    """Open a draft, say what it is, and preview the wishes; its files are closed again.

    Raises FormatError when a file cannot be read or is not what it was, UsageError when an edit cannot be.
    """
    progress.start(f"opening {draft.name}", 0)
    with building(draft, wishes.precision) as built:
        progress.check()
        if built.chosen is not None:
            told = built.chosen.sentence()
            last = replace(draft.edits[-1], told=told)
            draft = replace(draft, edits=(*draft.edits[:-1], last))
        usual = built.pruned(Wishes("keep"))
        loaded = Loaded(
            draft,
            built.found,
            facts_of(built.model),
            position_ids(built.model, built.found),
            keeps_unknown=any(left.key in usual.tensors for left in built.found.leftovers.unknown),
            missing=built.missing,
            figures=measuring.sizes(built),
        )
        progress.check()
        tree = tree_html(rows_of(built.model, built.found)) if built.model.tensors else EMPTY
        return Opened(loaded, _preview(built, wishes, file_format), tree)


def add(draft: Draft, edit: Import, wishes: Wishes, file_format: str, progress: Progress) -> Opened:
    """The draft with one more component put in. Raises as ``look`` does, with the reason where it does not fit."""
    if any(known.source.entry.path == edit.source.entry.path and known.source != edit.source for known in draft.edits):
        raise UsageError(
            f"{edit.source.entry.path.name} was changed since a part of it was imported; undo that, then import again."
        )
    opened = look(replace(draft, edits=(*draft.edits, edit)), wishes, file_format, progress)
    return replace(opened, after="import", told=opened.loaded.draft.edits[-1].told)


def preview(loaded: Loaded, wishes: Wishes, file_format: str, progress: Progress) -> Preview:
    """What a save with these wishes comes to. Raises FormatError when a file is not the one that was loaded."""
    progress.start(f"planning {loaded.name}", 0)
    with building(loaded.draft, wishes.precision, loaded.found) as built:
        return _preview(built, wishes, file_format)


def _preview(built: Built, wishes: Wishes, file_format: str) -> Preview:
    half_saves = saved_by_half(built.pruned(replace(wishes, precision="keep")), built.found)
    return preview_of(built.model, built.found, built.pruned(wishes), file_format, half_saves)


def propose_name(loaded: Loaded, preview: Preview, file_format: str, folder: Path, figure: str = "") -> str:
    """A name, without its ending, that says what was done and does not exist yet in the folder.

    ``figure`` is what it says of a VAE's metric, where it does not say so yet.
    """
    stem, kind = parted(loaded.draft.stem)
    if figure and figure not in stem:
        kind = figure + kind
    targets = {group.what.partition("→ ")[2] for group in preview.changed}
    done = [f"new-{edit.cls.partition('-')[0].lower()}" for edit in loaded.draft.edits if not loaded.draft.is_new]
    done += ["pruned"] if any(not group.what.startswith(_FORMER) for group in preview.dropped) else []
    done += [word for kind_of, word in _WORDS.items() if kind_of in targets and not loaded.draft.is_new]
    if not done and not loaded.draft.is_new:
        done = ["fixed" if preview.changed else "copy"]
    return free_stem(folder, "-".join([stem, *dict.fromkeys(done)]) + kind, SUFFIXES[file_format])


def parted(stem: str) -> tuple[str, str]:
    """A file's stem and the ``.vae`` behind it, by which WebUIs tell VAEs."""
    return (stem[:-4], stem[-4:]) if stem.lower().endswith(".vae") else (stem, "")


def free_stem(folder: Path, stem: str, ending: str) -> str:
    """The stem, or the first of stem(1), stem(2) …, with which no file of this ending exists."""
    return free_name(folder, stem, ending).name.removesuffix(ending)
