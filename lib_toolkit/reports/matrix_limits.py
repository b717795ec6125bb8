"""What a matrix cannot say, in sentences: which models have no distance, and what NaN and infinite values hide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lib_toolkit.analysis.compare.verdicts import listing
from lib_toolkit.analysis.matrix.merges import untold
from lib_toolkit.analysis.matrix.results import GroupResult, Pairs, SetResult
from lib_toolkit.reports.numbers import counted

_LISTED = 6
_TOLD = 4
"""Sentences of one kind for one component; what is more is counted."""


def named(names: Sequence[str]) -> str:
    """Names as a sentence lists them; of many the first few and how many more."""
    if len(names) <= _LISTED:
        return listing(list(names))
    return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED:,} more ({len(names):,} models)"


def capital(title: str) -> str:
    """A title at the beginning of a sentence."""
    return title[:1].upper() + title[1:]


def strangers(result: SetResult) -> Pairs:
    """Pairs of models, by place, no part of which fits together in any component. Schedules are computed from a few
    numbers, which makes nobody alike: they count where there is nothing else."""
    components = [one for one in result.components if one.group.id != "schedule"] or result.components
    count = len(result.members)
    known = np.zeros((count, count), dtype=bool)
    for component in components:
        # What fits but for its NaN and infinite values has a sentence of its own.
        known |= ~np.isnan(component.l2) | (component.left_out > 0)
    return tuple((int(a), int(b)) for a, b in np.argwhere(np.triu(~known, 1)))


def limit_sentences(result: SetResult) -> list[str]:
    """Which models cannot be compared with which, as wholes and in single components."""
    names = [member.name for member in result.members]
    apart = strangers(result)
    found = [f"{words}: no part of theirs fits together." for words in _opposed(names, apart, "be compared with")]
    found = _cut(found, "Other models cannot be compared either; matrix.json says which.")
    for component in result.components:
        found += _in_component(component, names, set(apart))
    return found


def _in_component(component: GroupResult, names: Sequence[str], said: set[tuple[int, int]]) -> list[str]:
    title = capital(component.group.title)
    found = []
    for why, pairs in component.reasons:
        silent = bool(component.silent[pairs[0]])
        new = [pair for pair in pairs if pair not in said or why != "no tensor is in both"]
        verb = "be given a distance to" if silent else "be compared with"
        found += [f"{title}: {words}: {why}." for words in _opposed(names, new, verb)]
    return _cut(found, f"{title}: other pairs have no distance either; matrix.json says why.")


def _cut(sentences: list[str], more: str) -> list[str]:
    return sentences if len(sentences) <= _TOLD else [*sentences[:_TOLD], more]


def _opposed(names: Sequence[str], pairs: Iterable[tuple[int, int]], verb: str) -> list[str]:
    """Who cannot do what with whom; models for which the same is true are told together."""
    others: dict[int, set[int]] = {}
    for a, b in pairs:
        others.setdefault(a, set()).add(b)
        others.setdefault(b, set()).add(a)
    found = []
    for place in sorted(others):
        against = set(others[place])
        if not against:
            continue
        alike = [one for one in sorted(others) if others[one] == against]
        for one in alike:
            others[one] = set()
        for one in against:
            others[one] -= set(alike)
        ours, theirs = ([names[one] for one in sorted(side)] for side in (alike, against))
        found.append(f"{named(ours)} cannot {verb} {named(theirs)}")
    return found


def gap_sentences(result: SetResult) -> list[str]:
    """Where NaN and infinite values keep merges from being told, or from being told of everything."""
    found = []
    for component in result.components:
        if component.group.id != "schedule" and len(component.present) > 2:
            found += _gaps(result, component)
    return found


def _gaps(result: SetResult, component: GroupResult) -> list[str]:
    title = capital(component.group.title)
    names = [member.name for member in result.members]
    found = []
    if holed := component.holed:
        verb, whose = ("takes", "its") if len(holed) == 1 else ("take", "their")
        who = named([names[place] for place in holed])
        found.append(
            f"{title}: {who} {verb} no part in the search for merges: most of {whose} values are NaN or infinite."
        )
    if blind := [place for place in untold(component) if place not in holed]:
        who = named([names[place] for place in blind])
        found.append(
            f"{title}: which of {who} are merges cannot be told: most values are NaN or infinite in one model or "
            "another; measure fewer of them at once."
        )
    inner = [one for one in result.blocks if one.group.id != "BASE"] if component.group.id == "unet" else []
    searched = [place for place in component.present if place not in holed and place not in blind]
    if most := max((int(component.joint_left_out[place]) for place in searched), default=0):
        what = counted(most, "value")
        verb = "takes" if most == 1 else "take"
        found.append(f"{title}: {what}, NaN or infinite in some model, {verb} no part in the search for merges.")
    return found + _blocks_untold(title, inner, searched, names)


def _blocks_untold(
    title: str, blocks: Sequence[GroupResult], searched: Sequence[int], names: Sequence[str]
) -> list[str]:
    """In which blocks the shares of which models cannot be told; models of which the same is true are told together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for place in searched:
        where = tuple(block.group.id for block in blocks if place in untold(block))
        if where:
            alike.setdefault(where, []).append(names[place])
    found = [
        f"{title}: shares of {named(who)} in {named(where)} cannot be told, nor of merges with "
        f"{'it' if len(who) == 1 else 'them'}: most values there are NaN or infinite."
        for where, who in alike.items()
    ]
    return _cut(found, f"{title}: shares of other models cannot be told in every block either.")
