"""What a third model is beside two, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lib_toolkit.analysis.compare.alignment import title_of
from lib_toolkit.analysis.compare.places import PAIR_SHARE, Placed, Position, Third
from lib_toolkit.analysis.compare.results import B, Comparison
from lib_toolkit.analysis.compare.verdicts import listing, no_numbers, percent

_NAMES = ("A", "B")


def third_verdicts(third: Third, pair: Comparison, to_m: Comparison, m_to_b: Comparison) -> tuple[str, ...]:
    """The sentences about M, out of its places and of the three comparisons: A to B, A to M, M to B."""
    name = third.model.name
    every = _counts(pair)
    alike = [one for one in third.components if _same_in_all(one.position) and one.tensors == every[one.component]]
    found = [f"A, B and {name} have the same {listing([one.name for one in alike])}."] if alike else []
    found += [_sentence(one, every[one.component], name) for one in third.components if one not in alike]
    found += _missing(third, every, to_m)
    found += _not_numbers(name, to_m, m_to_b)
    return tuple(found)


def _counts(pair: Comparison) -> dict[str, int]:
    """How many weights of each component A and B were compared in."""
    counts: dict[str, int] = {}
    for one in pair.weights():
        counts[one.row.component] = counts.get(one.row.component, 0) + 1
    return counts


def _same_in_all(place: Position) -> bool:
    return place.distance == 0 and place.exact


def _sentence(placed: Placed, every: int, name: str) -> str:
    """Where a component of M lies; ``every``: as how many tensors A and B have it."""
    place = placed.position
    some = placed.tensors < every
    title = f"Going by {placed.tensors:,} of {every:,} tensors, the" if some else "The"
    title += f" {placed.name} of {name}"
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


def _missing(third: Third, every: Mapping[str, int], to_m: Comparison) -> Iterator[str]:
    """What A and B have and M has not, or not in the same form."""
    name = third.model.name
    placed = {place.component for place in third.components}
    if every and not placed:
        yield f"{name} has nothing that can be placed between A and B: no tensor of it fits one of theirs."
        return
    for component in every:
        if component in placed:
            continue
        if any(one.id == component and one.matches[B] is None for one in to_m.components):
            yield f"{name} has no {title_of(component)}."
        else:
            yield f"No tensor of {name} fits A's and B's {title_of(component)}."


def _not_numbers(name: str, to_m: Comparison, m_to_b: Comparison) -> Iterator[str]:
    seen = {(one.row.component, one.row.key): (one.measures.nan_a, one.measures.infinite_a) for one in m_to_b.compared}
    seen |= {(one.row.component, one.row.key): (one.measures.nan_b, one.measures.infinite_b) for one in to_m.compared}
    nan, infinite = (sum(counts) for counts in zip(*seen.values(), strict=True)) if seen else (0, 0)
    sentence = no_numbers(name, nan, infinite)
    if sentence:
        yield f"{sentence} Tensors that hold them are not placed."
