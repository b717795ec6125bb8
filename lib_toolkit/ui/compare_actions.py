"""What the Compare panel does: two models (and a third beside them), or a set, measured by a job, shown in short and
handed out.

Nothing from the browser is trusted: models are looked up in the host's listing, metrics compared with their table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import Entry, Host
from lib_toolkit.progress import Progress
from lib_toolkit.reports.html import Html, tag
from lib_toolkit.reports.numbers import counted
from lib_toolkit.ui import screen
from lib_toolkit.ui.desk import Desk
from lib_toolkit.ui.drafts import Draft, take
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Session

LOADED = "What is loaded above"
"""The choice of the session's own model, with what was changed of it in memory."""

NO_THIRD = "No third model"
"""The choice to compare two models alone, since a list has no way back to no choice."""

PAIR_METRICS = ("l0", "l1", "l2", "cossim", "cosine")
SET_METRICS = ("l0", "l1", "l2", "cosine")
"""The figures of a pair and of a set, by name; the tests hold them against those of the analysis."""

NO_COMPARISON = tag(
    "p",
    "Nothing is compared yet. A comparison reads each model once, whole, and says what is the same, what was trained "
    "or mixed, and where; no model is changed.",
    class_="model-toolkit-empty",
)

OPEN_COMPARISON: Html = tag(
    "div",
    tag("button", "Open the comparison in a new page", type="button", data_model_toolkit_open="compare_html"),
    tag("span", role="status"),
    class_="model-toolkit-open",
)
"""The button that opens the page whose link stands in ``compare_html``."""

_FOLDER = re.compile(r"(.+)/ \([\d,]+ models\)", re.DOTALL)
_MOST = 500
"""Models of a set; a matrix of more is no longer looked at in a tab."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison: what was compared, in short as HTML, and as files to download."""

    told: str
    view: Html
    page: Path
    data: Path
    more: Path | None


class Comparing:
    """The panel's behaviour. Methods return the session's key and the changes of the page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.hands_to(Compared, _take_compared)
        desk.lists(choices)

    def pair(
        self,
        key: str | None,
        a: object,
        b: object,
        metrics: object,
        at_lower: object = False,
        third: object = NO_THIRD,
    ) -> tuple[str, Updates]:
        """Compare A with B, and place a third model M between them where one is chosen."""

        def begin(session: Session) -> Updates:
            self._desk.not_while(session)
            figures = _chosen(metrics, PAIR_METRICS)
            sides = [self._side(session, a, "A"), self._side(session, b, "B")]
            if sides[0] == sides[1]:
                raise UsageError(f"A and B are both {sides[0].name}; choose two models.")
            if third not in (None, "", NO_THIRD):
                sides.append(self._third(session, third, sides, at_lower is True))
            workers = _workers(self._desk.host)

            def work(progress: Progress) -> Compared:
                # Only here, since a page without a comparison should not wait for what it takes to make one.
                from lib_toolkit.ui import compare_work

                return compare_work.pair(sides, figures, at_lower is True, progress, workers)

            return self._desk.start(session, "compare", pair_told([side.name for side in sides]), work)

        return self._desk.answer(key, begin)

    def several(self, key: str | None, chosen: object, metrics: object) -> tuple[str, Updates]:
        """Compare a set, each with each; a folder stands for all models in it."""

        def begin(session: Session) -> Updates:
            self._desk.not_while(session)
            figures = _chosen(metrics, SET_METRICS)
            paths = self._set(chosen)
            workers = _workers(self._desk.host)

            def work(progress: Progress) -> Compared:
                from lib_toolkit.ui import compare_work

                return compare_work.several(paths, figures, progress, workers)

            return self._desk.start(session, "compare", f"{len(paths):,} models", work)

        return self._desk.answer(key, begin)

    def _side(self, session: Session, value: object, side: str) -> Draft:
        if value == LOADED:
            if session.loaded is None:
                raise UsageError(f"Nothing is loaded above; choose a model as {side}, or load one first.")
            return session.loaded.draft
        if not isinstance(value, str) or not value:
            raise UsageError(f"{side} is not chosen yet; choose a model as {side}.")
        return Draft(take(self._desk.host.find(value)))

    def _third(self, session: Session, value: object, sides: Sequence[Draft], at_lower: bool) -> Draft:
        """M, which is neither A nor B. Its place is told by what is stored, never at a lower precision."""
        third = self._side(session, value, "M")
        for letter, side in zip("AB", sides, strict=True):
            if third == side:
                raise UsageError(f"{letter} and M are both {third.name}; choose another model as M, or none.")
        if at_lower:
            raise UsageError(
                "A third model is compared at the precision that is stored; untick the lower precision of the two, or "
                "choose no third model."
            )
        return third

    def _set(self, chosen: object) -> list[Path]:
        """The files that are meant, each once."""
        values = [value for value in chosen if isinstance(value, str)] if isinstance(chosen, list) else []
        entries = self._desk.host.models()
        found: dict[Path, None] = {}
        for value in values:
            folder = _FOLDER.fullmatch(value)
            inside = _inside(entries, folder[1]) if folder is not None else ()
            if folder is not None and not inside:
                raise UsageError(f"There are no models in {folder[1]} any more; refresh the list.")
            found |= dict.fromkeys(entry.path for entry in (inside or (self._desk.host.find(value),)))
        if len(found) < 2:
            raise UsageError("A set needs two models or more; choose more of them, or a folder, under Set.")
        if len(found) > _MOST:
            raise UsageError(
                f"{len(found):,} models are too many for the tab; choose {_MOST} at most, or use the command "
                "model-toolkit matrix."
            )
        return list(found)


def side_choices(entries: Sequence[Entry]) -> list[str]:
    """What A and B can be."""
    return [LOADED, *(entry.label for entry in entries)]


def third_choices(entries: Sequence[Entry]) -> list[str]:
    """What a third model can be: none, or what A and B can be."""
    return [NO_THIRD, *side_choices(entries)]


def set_choices(entries: Sequence[Entry]) -> list[str]:
    """What a set can be made of: folders with two models or more, then the models."""
    folders: dict[str, int] = {}
    for entry in entries:
        above = entry.name
        while above := above.rpartition("/")[0]:
            folders[above] = folders.get(above, 0) + 1
    offered = [f"{name}/ ({counted(count, 'model')})" for name, count in sorted(folders.items()) if count > 1]
    return [*offered, *(entry.label for entry in entries)]


def choices(entries: Sequence[Entry]) -> Updates:
    """The models to choose from."""
    sides: dict[str, object] = {"choices": side_choices(entries)}
    return {
        "compare_a": sides,
        "compare_b": dict(sides),
        "compare_third": {"choices": third_choices(entries)},
        "compare_set": {"choices": set_choices(entries)},
    }


def pair_told(names: Sequence[str]) -> str:
    """What is compared, in words that follow "Comparing": A with B, and a third one with both."""
    a, b, *others = names
    return ", and ".join([f"{a} with {b}", *(f"{other} with both" for other in others)])


def _inside(entries: Sequence[Entry], folder: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.name.startswith(f"{folder}/"))


def _chosen(metrics: object, table: Sequence[str]) -> tuple[str, ...]:
    """The metrics that are ticked and defined, in the order of the table. Raises UsageError for none."""
    given = metrics if isinstance(metrics, list) else []
    found = tuple(name for name in table if name in given)
    if not found:
        raise UsageError(f"No figure is ticked that this comparison has; tick one of {', '.join(table)}.")
    return found


def _workers(host: Host) -> int | None:
    wanted = host.setting("workers", 0)
    return wanted if isinstance(wanted, int) and wanted > 0 else None


def _take_compared(session: Session, result: object) -> Updates:
    assert isinstance(result, Compared)
    more: dict[str, object] = {"value": None, "visible": False}
    if result.more is not None:
        more = {"value": str(result.more), "visible": True}
    shown: Updates = {
        "compare_view": {"value": result.view},
        "compare_open": {"value": OPEN_COMPARISON},
        "compare_html": {"value": str(result.page), "visible": True},
        "compare_json": {"value": str(result.data), "visible": True},
        "compare_more": more,
    }
    return merge(shown, screen.status(f"Compared {result.told}; no model was changed.", "good"))
