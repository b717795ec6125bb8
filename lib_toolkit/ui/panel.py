"""What the Basic panel shows of a session: its parts' properties, made from what was loaded and planned."""

from __future__ import annotations

from lib_toolkit.hosts.host import Host
from lib_toolkit.reports.html import EMPTY
from lib_toolkit.reports.memory import sentences
from lib_toolkit.reports.summary import components_html, findings_html, identity_html, may_offer_drop, saving_html
from lib_toolkit.ui.looking import propose_name
from lib_toolkit.ui.measuring import metric_html, vae_figure
from lib_toolkit.ui.saving import problem_of, target_of
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Session

REMEDIES = {
    "half": "Half precision",
    "keep_ema": "Keep the EMA copy",
    "fix_clip": "Fix the position IDs",
    "drop_unknown": "Leave out the unknown tensors",
}
"""The checkboxes beside findings, by name, in the order of the page."""

HALF = frozenset({"auto", "fp16", "bf16"})
"""Precisions for which the box *Half precision* is ticked."""


def loaded(host: Host, session: Session) -> Updates:
    """Everything, after a load."""
    assert session.loaded is not None
    return merge(
        {"components": {"value": components_html(session.loaded.found)}},
        planned(host, session),
    )


def planned(host: Host, session: Session) -> Updates:
    """What depends on the plan: bar, findings, the name that is proposed, what a save will write."""
    named = proposed(host, session)
    return merge(identity(session), _findings(session), named, saving(host, session))


def measured(host: Host, session: Session) -> Updates:
    """What depends on the metric."""
    before = session.name
    named = proposed(host, session)
    if session.name == before:
        return identity(session)
    return merge(identity(session), named, saving(host, session))


def proposed(host: Host, session: Session) -> Updates:
    """The name that is proposed, unless the user has chosen one."""
    model, preview = session.loaded, session.preview
    assert model is not None
    assert preview is not None
    if session.name not in {"", session.proposed}:
        return {}
    folder = host.output_folder(model.folder_kind)
    figure = vae_figure(session.metric, model.found.name) if model.found.kind == "vae" else ""
    session.name = session.proposed = propose_name(model, preview, session.file_format, folder, figure)
    return {"name": {"value": session.name}}


def identity(session: Session) -> Updates:
    """What the model is, with its edits."""
    model, preview = session.loaded, session.preview
    if model is None or preview is None:
        return {}
    said: tuple[str, ...] = ()
    if model.draft.is_new or model.draft.edits:
        begun = model.name if model.draft.is_new else ""
        edits = len(model.draft.edits) if session.unsaved else 0
        said = sentences(model.facts, model.found, begun, edits, model.missing if begun or model.incomplete else ())
    metric = metric_html(session.metric, bool(session.measuring), bool(model.figures))
    return {"identity": {"value": identity_html(model.facts, model.found, preview, said, metric)}}


def saving(host: Host, session: Session) -> Updates:
    """What a save will write, with the reason when it would be refused."""
    assert session.loaded is not None
    assert session.preview is not None
    problem = problem_of(host, session)
    folder = host.output_folder(session.loaded.folder_kind)
    name = session.name if problem else target_of(host, session).name
    return {"saving": {"value": saving_html(session.preview, name, str(folder), session.file_format, problem)}}


def no_findings() -> Updates:
    """No finding is shown and no box is ticked."""
    updates: Updates = {}
    for name in REMEDIES:
        updates |= {
            f"{name}_group": {"visible": False},
            f"{name}_told": {"value": EMPTY},
            name: {"value": False},
        }
    return updates


def _findings(session: Session) -> Updates:
    model = session.loaded
    assert model is not None
    assert session.preview is not None
    told = findings_html(model.facts, model.found, session.preview, model.position_ids, model.keeps_unknown)
    wishes = session.wishes
    ticked = {
        "half": wishes.precision in HALF,
        "keep_ema": wishes.keep_ema,
        "fix_clip": wishes.fix_clip,
        "drop_unknown": wishes.drop_unknown,
    }
    updates: Updates = {"precision": {"value": wishes.precision}}
    for name in REMEDIES:
        updates |= {
            f"{name}_group": {"visible": name in told},
            f"{name}_told": {"value": told.get(name, EMPTY)},
            name: {"value": ticked[name]},
        }
    if not may_offer_drop(model.facts, model.found):
        updates["drop_unknown"]["interactive"] = False
    else:
        updates["drop_unknown"]["interactive"] = True
    return updates
