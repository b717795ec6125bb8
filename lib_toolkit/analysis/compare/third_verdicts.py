"""What a third model is beside two, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator

from lib_toolkit.analysis.compare.alignment import WEIGHT
from lib_toolkit.analysis.compare.places import PAIR_SHARE, Placed, Position, Third
from lib_toolkit.analysis.compare.results import B, Comparison
from lib_toolkit.analysis.compare.verdicts import listing, no_numbers, percent

_NAMES = ("A", "B")


def third_verdicts(third: Third, pair: Comparison, to_m: Comparison, m_to_b: Comparison) -> tuple[str, ...]:
    """The sentences about M, out of its places and of the three comparisons: A to B, A to M, M to B."""
    name = third.model.name
    found = list(_alike(third, name))
    found += [_sentence(place, name) for place in third.components if not _same_in_all(place.position)]
    found += _missing(third, pair, to_m)
    found += _not_numbers(name, to_m, m_to_b)
    return tuple(found)


def _same_in_all(place: Position) -> bool:
    return place.distance == 0 and place.exact


def _alike(third: Third, name: str) -> Iterator[str]:
    titles = [place.name for place in third.components if _same_in_all(place.position)]
    if titles:
        yield f"A, B and {name} have the same {listing(titles)}."


def _sentence(placed: Placed, name: str) -> str:
    place = placed.position
    title = f"The {placed.name} of {name}"
    if place.copy_of is not None:
        rounded = "" if place.exact else ", but for the rounding of a coarser type"
        return f"{title} is that of {'A and B' if not place.distance else _NAMES[place.copy_of]}{rounded}."
    if place.ratio is None or place.off is None:
        return f"{title} differs, though A and B have the same {placed.name}."
    off = f"{percent(place.off)} of ‖A−B‖"
    share = f"{100 * place.ratio:.1f} % of B"
    if place.mixed:
        return f"{title} is mixed of A's and B's: {share} (off the line by {off}, which rounding explains)."
    if place.on_line:
        return f"{title} lies on the line of A's and B's, beyond them (ratio {place.ratio:.3f})."
    if place.nearly_mixed:
        return f"{title} is mixed of A's and B's ({share}) and trained on: it is off their line by {off}."
    nearer = 0 if place.from_a <= place.from_b else 1
    if place.nearest <= PAIR_SHARE * place.distance:
        way = percent(place.nearest / place.distance)
        return f"{title} is near {_NAMES[nearer]}'s, but not equal to it: it is {way} of ‖A−B‖ away."
    return f"{title} is no mix of A's and B's: it is off their line by {off}."


def _missing(third: Third, pair: Comparison, to_m: Comparison) -> Iterator[str]:
    """What A and B have and M has not, or not in the same form."""
    name = third.model.name
    placed = {place.component: place.tensors for place in third.components}
    both = [group for group in pair.by_component() if group.component != "schedule"]
    if both and not placed:
        yield f"{name} has nothing that can be placed between A and B: no tensor of it fits one of theirs."
        return
    for group in both:
        count = sum(one.row.kind == WEIGHT for one in group.members)
        have = placed.get(group.component, 0)
        if have == count:
            continue
        if any(one.id == group.component and one.matches[B] is None for one in to_m.components):
            yield f"{name} has no {group.name}."
        else:
            yield f"Of the {group.name} only {have:,} of {count:,} tensors of A and B could be placed with {name}."


def _not_numbers(name: str, to_m: Comparison, m_to_b: Comparison) -> Iterator[str]:
    seen = {(one.row.component, one.row.key): (one.measures.nan_a, one.measures.infinite_a) for one in m_to_b.compared}
    seen |= {(one.row.component, one.row.key): (one.measures.nan_b, one.measures.infinite_b) for one in to_m.compared}
    nan, infinite = (sum(counts) for counts in zip(*seen.values(), strict=True)) if seen else (0, 0)
    sentence = no_numbers(name, nan, infinite)
    if sentence:
        yield f"{sentence} Tensors that hold them are not placed."
