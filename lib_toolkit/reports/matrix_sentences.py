"""What a matrix means, in sentences: failures, identical parts, merges, and how far apart the rest is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib_toolkit.analysis.compare.alignment import title_of
from lib_toolkit.analysis.compare.verdicts import listing, percent
from lib_toolkit.analysis.matrix.merges import Merge, rounded_copies
from lib_toolkit.analysis.matrix.results import GroupResult, SetResult
from lib_toolkit.reports.matrix_limits import capital, gap_sentences, limit_sentences, named, strangers
from lib_toolkit.reports.numbers import counted


def summary(result: SetResult) -> list[str]:
    """The set in a few sentences, the most telling first; merges have sentences of their own."""
    count = len(result.members)
    pairs = count * (count - 1) // 2
    found = [f"{counted(count, 'model')} compared, each with each: {counted(pairs, 'pair')}."]
    if len(strangers(result)) == pairs:
        found = [f"{counted(count, 'model')} read, but no two of them can be compared."]
    found += limit_sentences(result)
    found += [f"{failure.name} was left out: {failure.reason}" for failure in result.failures]
    found += identical_sentences(result)
    found += [sentence for component in result.components if (sentence := _range(result, component))]
    for member in result.members:
        told = [f"{member.nan:,} NaN"] * bool(member.nan) + [f"{member.infinite:,} infinite"] * bool(member.infinite)
        if told:
            found.append(f"{member.name} holds {listing(told)} values: they are counted and take no part in figures.")
    return found + gap_sentences(result)


def identical_sentences(result: SetResult) -> list[str]:
    """Which components are the same in which models."""
    found = []
    for component in result.components:
        for group in component.identical:
            what = f"{capital(component.group.title)}: the same in"
            if len(group) == len(component.present) and len(group) > 2:
                found.append(f"{what} all {len(group)} models that have one.")
            else:
                found.append(f"{what} {named([result.members[place].name for place in group])}.")
        for copies in rounded_copies(component):
            title = capital(component.group.title)
            names = named([result.members[place].name for place in copies])
            found.append(f"{title}: the same but for rounding to a coarser type in {names}.")
    return found


def merge_sentences(result: SetResult) -> list[str]:
    """One sentence for each model and way in which it was mixed, whatever number of components that is true of."""
    alike: dict[tuple[object, ...], list[Merge]] = {}
    for merge in result.merges:
        weights = tuple(round(weight, 3) for weight in merge.weights)
        alike.setdefault((merge.model, merge.parents, merge.by_block, weights), []).append(merge)
    return [merge_sentence(result, merges) for _, merges in sorted(alike.items(), key=lambda item: item[1][0].model)]


def merge_sentence(result: SetResult, merges: Sequence[Merge]) -> str:
    """What merges of one model, equal but for their component, have to say."""
    first = merges[0]
    name = result.members[first.model].name
    parents = [result.members[place].name for place in first.parents]
    where = listing([f"the {title_of(merge.component)}" for merge in merges])
    residual = max(merge.residual / merge.distance if merge.distance else 0.0 for merge in merges)
    rest = f"what is left over is {percent(residual)} of the way to the nearest of them, no more than rounding makes"
    if first.by_block:
        weights = [share.weights[-1] for share in first.blocks if share.weights is not None]
        span = f"{_weight(min(weights))} to {_weight(max(weights))}"
        return f"{name} is a block-weighted merge of {listing(parents)} in {where}: {span} of {parents[-1]}; {rest}."
    recipe = " + ".join(f"{_weight(weight)} × {parent}" for weight, parent in zip(first.weights, parents, strict=True))
    return f"{name} is a merge: {recipe} in {where}; {rest}."


def _weight(weight: float) -> str:
    return f"{max(0.0, weight):.4f}".rstrip("0").rstrip(".") or "0"


def _range(result: SetResult, component: GroupResult) -> str:
    """The nearest and the farthest pair of a component."""
    apart = np.where(component.changed > 0, component.figures("l2"), np.nan)
    if component.group.id in ("schedule", "other") or np.isnan(apart).all():
        return ""
    near = np.unravel_index(int(np.nanargmin(apart)), apart.shape)
    far = np.unravel_index(int(np.nanargmax(apart)), apart.shape)

    def pair(at: tuple[np.intp, ...]) -> str:
        names = [result.members[int(place)].name for place in sorted(at)]
        return f"{listing(names)} ({float(apart[at]):.5g})"

    title = capital(component.group.title)
    if set(near) == set(far):
        return f"{title}: {pair(near)} differ by that distance (L2)."
    return f"{title}: the nearest that differ are {pair(near)}, the farthest {pair(far)} (L2)."
