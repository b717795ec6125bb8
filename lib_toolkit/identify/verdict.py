"""From components to a verdict: which architecture a file is, or is nearest to, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lib_toolkit.architectures.registry import CHECKPOINTS, Architecture, Part, bare_architecture
from lib_toolkit.identify.evidence import Match, Rejected

_MOST = 0.5
"""Share of a file's bytes beyond which unknown tensors, not the components found, say what it is."""

_REJECTED = 6
_EXAMPLES = 5
_TOLD = 2
"""Candidates of which keys are given too: making their tables takes time."""


@dataclass(frozen=True)
class Verdict:
    """What the file is called and why; the fields are those of Identification."""

    architecture: Architecture | None
    name: str
    id: str | None
    kind: str
    intact: bool
    base: str | None = None
    missing_classes: tuple[str, ...] = ()
    absent: tuple[Part, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class _Score:
    """How far a file fills an architecture. ``elsewhere``: parts that stand under another prefix."""

    architecture: Architecture
    filled: Mapping[str, Match]
    complete: int
    elsewhere: int

    @property
    def evidence(self) -> tuple[int, int, int]:
        return self.complete, len(self.filled), self.elsewhere

    @property
    def whole(self) -> bool:
        return self.complete == len(self.architecture.parts)

    @property
    def lacking(self) -> tuple[Part, ...]:
        """Parts without a complete component in their place."""
        return tuple(
            part
            for part in self.architecture.parts
            if part.prefix not in self.filled or not self.filled[part.prefix].complete
        )


UNKNOWN = Verdict(None, "unknown", None, "unknown", False)


def decide(matches: Sequence[Match], unknown_share: float) -> Verdict:
    """The verdict on a file with these components, of whose bytes ``unknown_share`` (0 to 1) are unknown."""
    scores = [score for entry in CHECKPOINTS if (score := _score(entry, matches)).evidence > (0, 0, 0)]
    whole = max((score for score in scores if score.whole), key=lambda score: score.complete, default=None)
    if whole is not None:
        chosen = whole.architecture
        rejected = _rejected(scores, chosen, matches)
        return Verdict(chosen, chosen.name, chosen.id, chosen.kind, True, rejected=rejected)
    if not matches:
        return UNKNOWN
    if unknown_share > _MOST:
        names = ", ".join(match.component.name for match in matches)
        reason = f"only {100 * (1 - unknown_share):.0f} % of the bytes are a known component ({names})"
        near = _nearest(scores)
        name = near.architecture.name if near else matches[0].component.cls
        return replace(UNKNOWN, rejected=(Rejected(name, reason),))
    # The EMA copy counts as a part of its own only where it is all that there is.
    counted = [match for match in matches if match.layout != "ema"] or list(matches)
    verdict = _single(counted[0], scores) if len(counted) == 1 else _several(counted, scores)
    return replace(verdict, rejected=_rejected(scores, None, matches))


def _score(architecture: Architecture, matches: Sequence[Match]) -> _Score:
    filled: dict[str, Match] = {}
    elsewhere = 0
    for part in architecture.parts:
        fitting = [match for match in matches if match.component.name in part.components]
        here = [match for match in fitting if match.prefix == part.prefix]
        if here:
            filled[part.prefix] = max(here, key=lambda match: match.complete)
        elif fitting:
            elsewhere += 1
    complete = sum(match.complete for match in filled.values())
    return _Score(architecture, filled, complete, elsewhere)


def _nearest(scores: Sequence[_Score]) -> _Score | None:
    """The architecture with the most parts there; None where several that are not variants of one are as near."""
    if not scores:
        return None
    best = max(score.evidence for score in scores)
    equal = [score for score in scores if score.evidence == best]
    plain = [score for score in equal if score.architecture.variant_of is None] or equal
    fewest = min(len(score.lacking) for score in plain)
    nearest = [score for score in plain if len(score.lacking) == fewest] if sum(best) > 1 else plain
    return nearest[0] if len(nearest) == 1 else None


def _single(match: Match, scores: Sequence[_Score]) -> Verdict:
    component = match.component
    base = component.id if component.kind == "controlnet" else None
    if not match.named:
        return Verdict(None, component.name, None, component.kind, False)
    entry = bare_architecture(component)
    if match.complete and match.prefix in component.alone:
        return Verdict(entry, entry.name, entry.id, entry.kind, True, base)
    near = _nearest(scores) if match.prefix else None
    missing = tuple(part.cls for part in near.lacking) if near else () if match.complete else (component.cls,)
    absent = _absent(near) if near else ()
    return Verdict(entry, f"{component.cls}-BROKEN", entry.id, entry.kind, False, base, missing, absent)


def _several(matches: Sequence[Match], scores: Sequence[_Score]) -> Verdict:
    strange = next((match for match in matches if not match.named), None)
    if strange is not None:
        return Verdict(None, f"checkpoint with {strange.component.name}", None, "checkpoint", False)
    near = _nearest(scores)
    if near is None:
        names = " + ".join(sorted({match.component.cls for match in matches}))
        return Verdict(None, f"{names}-BROKEN", None, "checkpoint", False)
    chosen = near.architecture
    missing = tuple(part.cls for part in near.lacking)
    return Verdict(chosen, f"{chosen.name}-BROKEN", chosen.id, chosen.kind, False, None, missing, _absent(near))


def _absent(score: _Score) -> tuple[Part, ...]:
    """Parts of which nothing at all is there."""
    return tuple(part for part in score.architecture.parts if part.prefix not in score.filled)


def _rejected(scores: Sequence[_Score], chosen: Architecture | None, matches: Sequence[Match]) -> tuple[Rejected, ...]:
    """Candidates and why they are not it, the nearest first; ``chosen`` is what a whole file is."""
    found = {match.component.name: match for match in matches}
    classes = {match.component.cls for match in matches if match.complete}
    others = [score for score in scores if score.architecture is not chosen and _worth_telling(score, matches)]
    others.sort(key=lambda score: (*(-count for count in score.evidence), score.architecture.name))
    return tuple(
        Rejected(score.architecture.name, _reason(score, found, classes), _examples(score) if rank < _TOLD else ())
        for rank, score in enumerate(others[:_REJECTED])
    )


def _worth_telling(score: _Score, matches: Sequence[Match]) -> bool:
    """Variants only where one part is all that they lack; a shared VAE alone is no likeness."""
    if score.architecture.variant_of is not None and len(score.lacking) > 1:
        return False
    shared = {match.component.kind for match in score.filled.values()} <= {"vae"}
    return not shared or score.elsewhere > 0 or all(match.component.kind == "vae" for match in matches)


def _reason(score: _Score, found: Mapping[str, Match], classes: set[str]) -> str:
    faults = [_fault(score.filled[part.prefix]) for part in score.lacking if part.prefix in score.filled]
    missing = [part for part in score.lacking if part.cls not in classes and part.prefix not in score.filled]
    if missing:
        faults.append("missing classes: " + ", ".join(part.cls for part in missing))
    if faults:
        return "; ".join(faults)
    wanted = [part for part in score.lacking if not set(part.components) & found.keys()]
    if wanted:
        return "missing components: " + ", ".join(part.components[0] for part in wanted)
    if score.lacking:
        return "components under other prefixes: " + ", ".join(part.cls for part in score.lacking)
    return "a more complete architecture matches"


def _fault(match: Match) -> str:
    """What an incomplete component lacks."""
    faults = []
    if match.missing:
        faults.append(f"missing required keys ({len(match.missing):,} of {match.required:,})")
    if match.wrong_shape:
        faults.append(f"wrong shapes ({len(match.wrong_shape):,} of {match.required:,})")
    return f"{match.component.cls}: {' and '.join(faults)}"


def _examples(score: _Score) -> tuple[str, ...]:
    """A few of the keys that an incomplete part lacks, or that an absent part would begin with."""
    keys: list[str] = []
    for part in score.lacking:
        match = score.filled.get(part.prefix)
        if match is not None:
            keys += [*match.missing[:_EXAMPLES], *(wrong.key for wrong in match.wrong_shape[:_EXAMPLES])]
        elif part.component.family is not None:
            keys.append(part.prefix + next(iter(part.component.family.table(rare=False))))
    return tuple(keys[:_EXAMPLES])
