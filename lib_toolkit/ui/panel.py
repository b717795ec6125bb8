"""What the Basic panel shows of a session: its parts' properties, made from what was loaded and planned."""

from __future__ import annotations

from lib_toolkit.hosts.host import Host
from lib_toolkit.reports.html import EMPTY
from lib_toolkit.reports.summary import components_html, findings_html, identity_html, may_offer_drop, saving_html
from lib_toolkit.ui.saving import problem_of, target_of
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Session, propose_name

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
    model, preview = session.loaded, session.preview
    assert model is not None
    assert preview is not None
    named: Updates = {}
    if session.name in {"", session.proposed}:
        folder = host.output_folder(model.folder_kind)
        session.name = session.proposed = propose_name(model, preview, session.file_format, folder)
        named = {"name": {"value": session.name}}
    identity: Updates = {"identity": {"value": identity_html(model.facts, model.found, preview)}}
    return merge(identity, _findings(session), named, saving(host, session))


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
