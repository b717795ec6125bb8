"""What a preview of Autoprune found, as HTML that cannot be mistaken for what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_toolkit.autoprune import Policy, Step
from lib_toolkit.autoprune.policy import DONE
from lib_toolkit.autoprune.steps import DUPLICATE, HAS_FAILED, LEFT, MOVED, PLANNED, POSTPONED, WRITTEN
from lib_toolkit.reports.html import EMPTY, Html, bullets, tag
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.ui.autoprune_view import OUTCOMES, card, place_of

_FORESEEN = {
    WRITTEN: ("✓", "would be pruned", "good"),
    MOVED: ("→", "would be moved as it is", "good"),
    DUPLICATE: ("=", "is there already", "good"),
    HAS_FAILED: ("✕", "would go to Failed", "bad"),
    POSTPONED: ("!", "would be postponed", "bad"),
    LEFT: ("–", "would be left alone", "still"),
}
_LISTED = 200
_SIZES = (
    "Sizes are those of results in which every tensor takes its new type; one whose values are too large or too small "
    "for it keeps its own, which only a run sees."
)

_FATES = {
    "done": f"would go to {DONE}",
    "keep": "would stay where it is",
    "delete": "would be deleted",
}


def preview_html(said: str, steps: Sequence[Step], policy: Policy, most: int = _LISTED) -> Html:
    """What was found, in a sentence, and a card for each file in order of their names: first those that a run would
    deal with, then those that it would leave."""
    planned = [step for step in steps if step.outcome == PLANNED]
    others = [step for step in steps if step.outcome != PLANNED]
    shown = [_card(step, policy) for step in (*planned, *others)[:most]]
    rest = len(steps) - len(shown)
    narrows = any("→" in one.what for step in planned if step.foreseen == WRITTEN for one in step.changed)
    return tag(
        "section",
        tag("h3", "Preview: nothing was changed"),
        tag("p", said, class_="model-toolkit-verdict"),
        tag("p", _SIZES) if narrows else EMPTY,
        tag("ul", *shown, class_="model-toolkit-steps") if shown else EMPTY,
        tag("p", f"And {counted(rest, 'file')} more.") if rest > 0 else EMPTY,
        class_="model-toolkit-preview",
    )


def _card(step: Step, policy: Policy) -> Html:
    sign, word, tone = _FORESEEN.get(step.foreseen) or OUTCOMES.get(step.outcome, ("?", step.outcome, "still"))
    if step.foreseen == MOVED and policy.sources == "keep":
        word = "would be copied as it is"
    return card(step.file, f"{sign} {word}", tone, _sentence(step, policy), bullets(_facts(step, policy)))


def _sentence(step: Step, policy: Policy) -> str:
    place, size = place_of(step.target, policy), human_bytes(step.size)
    if step.foreseen == WRITTEN:
        less = f"{human_bytes(step.saved)} would be saved" if step.saved > 0 else "nothing would be saved"
        told = f"{step.architecture}: {size} → {human_bytes(step.target_size)} ({less}), as {place}."
        return f"{told} The source {_FATES[policy.sources]}."
    if step.foreseen == MOVED:
        return f"{step.architecture}, {size}: it needs nothing, and would become {place}."
    if step.foreseen == DUPLICATE:
        fate = _FATES["keep" if policy.sources == "keep" else "done"]
        return f"{step.architecture}, {size}: {step.reason} See {place}. The source {fate}."
    return step.reason


def _facts(step: Step, policy: Policy) -> list[str]:
    facts: list[str] = []
    if step.foreseen != DUPLICATE:
        facts += [f"To leave out: {one.count:,} × {one.reason} ({human_bytes(one.bytes)})" for one in step.removed]
        facts += [f"To change: {one.count:,} × {one.what}" for one in step.changed]
    facts += step.findings
    if step.sidecars:
        facts.append(f"To go along with it: {', '.join(Path(path).name for path in step.sidecars)}")
    return facts
