"""What the Advanced panel shows of a session: its parts' properties, made from what was loaded, edited and planned."""

from __future__ import annotations

from lib_toolkit.hosts.host import Host
from lib_toolkit.reports.html import EMPTY, Html
from lib_toolkit.reports.memory import details_html, edit_title, edits_html, unsaved_html
from lib_toolkit.ui import choices, looking, screen
from lib_toolkit.ui.measuring import vae_figure
from lib_toolkit.ui.reporting import NO_REPORT, OPEN_REPORT
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Aim, Session

AIMS = ("architecture", "class", "component", "import_component")
"""The dropdowns whose choices follow from the loaded model."""


def blank() -> Updates:
    """The panel of a session without a model."""
    parts: Updates = {name: {"choices": [], "value": None} for name in AIMS}
    for name in ("import", "export", "undo", "report"):
        parts[name] = {"interactive": False}
    return merge(
        parts,
        {
            "export_name": {"value": ""},
            "edits": {"value": edits_html("", (), ())},
            "details": {"value": EMPTY},
            "tensors": {"value": EMPTY},
            "unsaved": {"value": EMPTY},
        },
        _no_report(NO_REPORT),
    )


def loaded(host: Host, session: Session, tree: Html) -> Updates:
    """Everything, after a load or an edit."""
    assert session.loaded is not None
    session.aim = choices.aimed(session.loaded, session.aim)
    shown = merge({"tensors": {"value": tree}}, aim(host, session), planned(session), state(session))
    shown = merge(shown, {name: {"interactive": True} for name in ("import", "export")})
    shown["report"] = {"interactive": not session.loaded.draft.is_new}
    return merge(shown, reported(session) if session.report else _no_report(NO_REPORT))


def planned(session: Session) -> Updates:
    """What depends on the plan: the keys that it drops."""
    assert session.loaded is not None
    assert session.preview is not None
    return {"details": {"value": details_html(session.loaded.found, session.preview)}}


def state(session: Session) -> Updates:
    """What was changed in memory, and whether it is saved."""
    model = session.loaded
    if model is None:
        return {}
    titles = [(edit_title(edit.cls, edit.source.entry.name), edit.told) for edit in model.draft.edits]
    return {
        "edits": {"value": edits_html(model.name, titles, model.missing if model.incomplete or _new(session) else ())},
        "undo": {"interactive": bool(titles)},
        "unsaved": {"value": unsaved_html(len(titles)) if session.unsaved else EMPTY},
    }


def _new(session: Session) -> bool:
    return session.loaded is not None and session.loaded.draft.is_new


def aim(host: Host, session: Session) -> Updates:
    """The dropdowns, and the name for an export of what they point at."""
    model, now = session.loaded, session.aim
    assert model is not None
    offered = {
        "architecture": (choices.architectures(model), now.architecture),
        "class": (choices.classes(model, now.architecture), now.cls),
        "component": (choices.components(model.found, now.cls), now.component),
        "import_component": (choices.import_components(now.cls), now.import_component),
    }
    shown: Updates = {
        name: {"choices": list(values), "value": value or None} for name, (values, value) in offered.items()
    }
    return merge(shown, {"export_name": {"value": _export_name(host, session, now)}})


def _export_name(host: Host, session: Session, now: Aim) -> str:
    assert session.loaded is not None
    if not now.cls:
        return ""
    stem, _ = looking.parted(session.loaded.draft.stem)
    folder = host.output_folder(choices.export_kind(session.loaded.found, now.cls))
    figure = vae_figure(session.metric, now.cls)
    if figure and figure not in stem:
        stem += figure
    return looking.free_stem(folder, stem + choices.export_suffix(session.loaded, now), ".safetensors")


def reported(session: Session) -> Updates:
    """The report that was made last, with its files."""
    assert session.report is not None
    report, source = session.report.report, session.report.source
    said = f"The report on {source.entry.path.name} is ready."
    if session.unsaved:
        said += " It tells of the file on disk, without what was changed in memory."
    shown: Updates = {
        "report_view": {"value": report.summary_html},
        "report_html": {"value": str(report.html_path), "visible": True},
        "report_json": {"value": str(report.json_path), "visible": True},
        "report_open": {"value": OPEN_REPORT},
    }
    return merge(shown, screen.status(said, "good"))


def _no_report(said: Html) -> Updates:
    return {
        "report_view": {"value": said},
        "report_html": {"value": None, "visible": False},
        "report_json": {"value": None, "visible": False},
        "report_open": {"value": EMPTY},
    }
