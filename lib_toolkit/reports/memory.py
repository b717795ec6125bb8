"""What was changed in memory, and why a model is what it is: HTML for the Advanced panel, limited in length."""

from __future__ import annotations

from collections.abc import Sequence

from lib_toolkit.identify import Identification, Leftover, Match, Rejected
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, tag
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.summary import Facts, Group, Preview, verdict

_MOST_KEYS = 100
"""Keys that a list names; the rest of it is counted."""

_MOST_EXTRA = 20


def sentences(facts: Facts, found: Identification, begun: str, edits: int, missing: Sequence[str]) -> tuple[str, ...]:
    """The verdict on a model in memory. ``begun`` is its architecture where it is a new one, else empty."""
    lacks = f"It still lacks {', '.join(missing)}." if missing else ""
    if begun and not edits:
        return (f"{facts.name} is empty: import its parts under Advanced.", lacks)
    told = verdict(facts, found)
    state = f"Changed in memory ({counted(edits, 'edit')}), not saved yet." if edits else ""
    if begun and missing:
        told = (f"{facts.name} is not whole yet.", *told[1:])
    return (told[0], *(part for part in (state, lacks) if part), *told[1:])


def unsaved_html(edits: int) -> Html:
    """The reminder that stands above the panels; its mark lets the page ask before it is left."""
    return tag(
        "p",
        f"Changed in memory, not saved yet: {counted(edits, 'edit')}.",
        class_="model-toolkit-unsaved",
        data_model_toolkit_unsaved=str(edits),
    )


def edit_title(cls: str, source: str) -> str:
    """An import in a few words."""
    return f"{cls} from {source}"


def edits_html(name: str, edits: Sequence[tuple[str, str]], missing: Sequence[str]) -> Html:
    """The edits in their order, each with the sentence that tells what was taken; and what is still missing."""
    if not name:
        return tag("p", "Nothing is loaded.", class_="model-toolkit-empty")
    parts = [tag("h3", "Changed in memory")]
    if edits:
        parts.append(tag("ol", *(tag("li", tag("b", title), ". ", told) for title, told in edits)))
    else:
        parts.append(tag("p", f"Nothing of {name} is changed."))
    if missing:
        parts.append(bullets([f"Still missing: {', '.join(missing)}."], "model-toolkit-warnings"))
    return join(parts)


def details_html(found: Identification, preview: Preview) -> Html:
    """Matched and rejected architectures, unknown and dropped keys, each folded under a title that counts them."""
    matched = [_match(match) for match in found.components]
    return join(
        [
            tag("h3", "Details"),
            details(f"Matched: {found.name}, {counted(len(matched), 'component')}", join(matched)),
            details(f"Rejected: {counted(len(found.rejected), 'architecture')}", *map(_rejected, found.rejected)),
            _leftovers("Unknown", found.leftovers.unknown),
            _leftovers("Kept with what they belong to", found.leftovers.protected),
            _leftovers("Of no use for images", found.leftovers.removable),
            _dropped(preview.dropped),
        ]
    )


def _match(match: Match) -> Html:
    state = "whole" if match.complete else "not whole"
    told = (
        f"{match.component.name} (class {match.component.cls}, layout {match.layout}) "
        f"{'under ' + match.prefix if match.prefix else 'without a prefix'}: {state}, "
        f"{counted(match.tensors, 'tensor')}, {human_bytes(match.bytes)}."
    )
    return join(
        [
            tag("p", told),
            _keys("Missing", match.missing),
            _keys(
                "Of another shape",
                [f"{one.key}: {list(one.found)} where {list(one.expected)} is usual" for one in match.wrong_shape],
            ),
        ]
    )


def _rejected(one: Rejected) -> Html:
    return join([tag("p", tag("b", one.name), f": {one.reason}."), bullets(list(one.examples))])


def _keys(title: str, keys: Sequence[str]) -> Html:
    return details(f"{title}: {len(keys):,}", _listed(keys)) if keys else EMPTY


def _leftovers(title: str, entries: Sequence[Leftover]) -> Html:
    size = human_bytes(sum(entry.bytes for entry in entries))
    reasons = [f"{entry.key}: {entry.reason}" if entry.reason else entry.key for entry in entries[: _MOST_KEYS + 1]]
    told = f"{title}: {counted(len(entries), 'tensor')}" + (f", {size}" if entries else "")
    return details(told, _listed(reasons, len(entries)))


def _dropped(groups: Sequence[Group]) -> Html:
    count = sum(group.count for group in groups)
    rows = [
        join(
            [
                tag("p", tag("b", f"{group.count:,} × "), group.what, f" ({human_bytes(group.bytes)})"),
                _listed(list(group.examples), group.count),
            ]
        )
        for group in groups[:_MOST_EXTRA]
    ]
    if len(groups) > _MOST_EXTRA:
        rows.append(tag("p", f"… and for {counted(len(groups) - _MOST_EXTRA, 'more reason')}."))
    return details(f"Left out by Save: {count:,}", *rows)


def _listed(keys: Sequence[str], count: int | None = None) -> Html:
    """The first keys, and how many more there are; ``count`` where not all of them are given."""
    total = len(keys) if count is None else count
    if not total:
        return tag("p", "None.")
    shown = list(keys[:_MOST_KEYS])
    more = [f"… and {total - len(shown):,} more"] if total > len(shown) else []
    return bullets([*shown, *more])
