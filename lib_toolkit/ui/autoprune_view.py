"""What Autoprune did, what waits for it, and the rules that it goes by, as HTML; names out of files are only text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from lib_toolkit.autoprune import Policy, Run, Step
from lib_toolkit.autoprune.steps import (
    DUPLICATE,
    HAS_FAILED,
    LEFT,
    MOVED,
    POSTPONED,
    WAITING,
    WRITTEN,
)
from lib_toolkit.autoprune.telling import summary
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, tag
from lib_toolkit.reports.numbers import counted, human_bytes

OUTCOMES = {
    WRITTEN: ("✓", "pruned", "good"),
    MOVED: ("→", "moved as it was", "good"),
    DUPLICATE: ("=", "there already", "good"),
    HAS_FAILED: ("✕", "failed", "bad"),
    POSTPONED: ("!", "postponed", "bad"),
    WAITING: ("…", "waiting", "still"),
    LEFT: ("–", "left alone", "still"),
}
"""A sign, a word and a tone for each outcome; the sign tells them apart without colours."""

_STATES = {
    "running": "A run goes on since {began}, begun by another program or before this page.",
    "interrupted": "The run of {began} was cut off; nothing is lost, and the next run takes the missing steps.",
    "cancelled": "The run of {began} was cancelled.",
    "stopped": "The run of {began} had to stop.",
}
_LISTED = 200

_SOURCES = {
    "done": "a source moves to Autoprune/Done once its result is verified",
    "keep": "sources stay where they are",
    "delete": "a source is deleted once its result is verified",
}
_PRECISIONS = {
    "auto": "FP32 becomes FP16, 16-bit weights stay",
    "fp16": "weights become FP16",
    "bf16": "weights become BF16",
    "fp32": "weights become FP32",
    "keep": "weights keep their precision",
}


def run_html(run: Run | None, policy: Policy, notes: Sequence[str] = ()) -> Html:
    """The last run: when it was, what came of it, what is left for the user to do, and a card for each file."""
    if run is None:
        return _titled("The last run", tag("p", "There was none yet.", class_="model-toolkit-empty"))
    began = _when(run.began)
    said = _STATES.get(run.state, "The run of {began} has ended.").format(began=began)
    verdict = tag("p", f"{said} {run.reason or summary(run)}", class_="model-toolkit-verdict")
    return _titled("The last run", verdict, *(tag("p", note) for note in notes), steps_html(run.steps, policy))


def steps_html(steps: Sequence[Step], policy: Policy, most: int = _LISTED) -> Html:
    """A card for each file, the last one first."""
    shown = [_card(step, policy) for step in reversed(steps[-most:])]
    rest = len(steps) - len(shown)
    more = tag("p", f"{counted(rest, 'file')} more in Autoprune/journal.jsonl.") if rest > 0 else EMPTY
    return join([tag("ul", *shown, class_="model-toolkit-steps"), more]) if shown else EMPTY


def waiting_html(steps: Sequence[Step], policy: Policy) -> Html:
    """What lies in the drop folder now."""
    if not steps:
        said = tag("p", f"Nothing lies in {drop_name(policy)}.", class_="model-toolkit-empty")
        return _titled("What is waiting", said)
    ready = [step for step in steps if step.outcome == WAITING]
    size = sum(step.size for step in ready)
    told = f"{counted(len(ready), 'file')}, {human_bytes(size)}." if ready else "No file waits."
    rows = [tag("li", tag("b", step.file), f" ({human_bytes(step.size)}): {step.reason}") for step in steps[:_LISTED]]
    rest = len(steps) - len(rows)
    more = tag("p", f"And {counted(rest, 'file')} more.") if rest > 0 else EMPTY
    return _titled("What is waiting", tag("p", told), tag("ul", *rows, class_="model-toolkit-waiting"), more)


def rules_html(policy: Policy, at_start: bool, where: str) -> Html:
    """What happens to a file, by the settings of now; ``where`` says in which place they are changed."""
    rules = [
        _PRECISIONS[policy.precision],
        "EMA weights are kept" if policy.keep_ema else "EMA weights, training state and junk go",
        f"VAEs become .{policy.vae_format}, other components .{policy.component_format}",
        _SOURCES[policy.sources],
    ]
    if policy.fix_clip:
        rules.append("broken CLIP position ids are mended")
    begin = "At each start, or when you press Run now" if at_start else "When you press Run now"
    return tag(
        "p",
        f"Put downloads into {drop_name(policy)}. {begin}, each of them becomes a clean model in the folder of its "
        f"kind, with its previews and info files: {'; '.join(rules)}. Preview tells what would become of each and "
        f"changes nothing. Settings: {where}.",
        class_="model-toolkit-rules",
    )


def drop_name(policy: Policy) -> str:
    """The drop folder as users know it, without the way to it."""
    return f"{policy.drop.parent.name}/{policy.drop.name}"


def card(file: str, badge: str, tone: str, sentence: str, more: Html) -> Html:
    """One file of a list of steps: its name, what became of it in a word and in a sentence, and more."""
    told = tag("span", badge, class_=f"model-toolkit-outcome model-toolkit-outcome-{tone}")
    head = tag("div", tag("b", file), told, class_="model-toolkit-step-head")
    return tag("li", head, tag("p", sentence), more)


def place_of(path: str, policy: Policy) -> str:
    """A path below one of the policy's folders, by the name of that folder: visitors need not know where it is."""
    target = Path(path)
    for folder in _folders(policy):
        if target.is_relative_to(folder):
            return f"{folder.name}/{target.relative_to(folder).as_posix()}"
    return target.name


def _titled(title: str, *parts: str) -> Html:
    return tag("section", tag("h3", title), *parts)


def _when(moment: str) -> str:
    """A moment of the journal in this computer's time, to the minute."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return moment or "an unknown time"


def _card(step: Step, policy: Policy) -> Html:
    sign, word, tone = OUTCOMES.get(step.outcome, ("?", step.outcome, "still"))
    more = bullets(_facts(step, policy))
    folded = details("Details", more) if more else EMPTY
    return card(step.file, f"{sign} {word}", tone, _sentence(step, policy), folded)


def _sentence(step: Step, policy: Policy) -> str:
    place = place_of(step.target, policy)
    size, result = human_bytes(step.size), human_bytes(step.target_size)
    if step.outcome == WRITTEN:
        less = f"{human_bytes(step.saved)} saved" if step.saved > 0 else "nothing saved"
        return f"{step.architecture}: {size} → {result} ({less}), now {place}."
    if step.outcome == MOVED:
        return f"{step.architecture}, {size}: it needed nothing, and is now {place}."
    if step.outcome == DUPLICATE:
        return f"{step.architecture}, {size}: {step.reason} See {place}."
    if step.outcome == HAS_FAILED:
        return f"{step.reason} It lies at {place}, beside a text that says so."
    return step.reason


def _facts(step: Step, policy: Policy) -> list[str]:
    facts = [f"Left out: {one.count:,} × {one.reason} ({human_bytes(one.bytes)})" for one in step.removed]
    facts += [f"Changed: {one.count:,} × {one.what}" for one in step.changed]
    facts += list(step.findings)
    if step.sidecars:
        facts.append(f"Along with it: {', '.join(Path(path).name for path in step.sidecars)}")
    if step.source and step.outcome in {WRITTEN, DUPLICATE} and step.source != step.file:
        facts.append(f"The source is now {policy.drop.name}/{step.source}")
    if sha256 := step.hashes.get("sha256"):
        facts.append(f"SHA256 of the source: {sha256}")
    if step.recovered:
        facts.append("Begun by a run that was cut off, and ended by this one")
    return facts


def _folders(policy: Policy) -> Iterable[Path]:
    """The innermost ones first."""
    folders = {*policy.folders.values(), policy.drop, policy.real_drop}
    return sorted(folders, key=lambda folder: len(folder.parts), reverse=True)
