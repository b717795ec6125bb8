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
    found = []
    if blind := untold(component):
        own = np.diag(component.left_out)
        bad = [result.members[place].name for place in blind if 2 * own[place] > component.own_elements[place]]
        cause = f"{named(bad)}, without which it may be" if bad else "one model or another"
        models = named([result.members[place].name for place in blind])
        found.append(
            f"{title}: which of {models} are merges cannot be told: most values are NaN or infinite in {cause}."
        )
    most = max((int(component.joint_left_out[place]) for place in component.present if place not in blind), default=0)
    if most:
        blocks = [one.group.id for one in result.blocks if one.group.id != "BASE" and untold(one)]
        fewer = f", and shares in {named(blocks)} cannot be told" if blocks and component.group.id == "unet" else ""
        what = counted(most, "value")
        verb = "takes" if most == 1 else "take"
        found.append(f"{title}: {what}, NaN or infinite in some model, {verb} no part in the search for merges{fewer}.")
    return found
