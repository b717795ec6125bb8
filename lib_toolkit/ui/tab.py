"""The Toolkit tab: puts the rows and panels together and wires their events; it decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_toolkit.hosts.host import Host
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import advanced, autoprune, basic, compare, compat, toprow
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.editing import Pointed
from lib_toolkit.ui.pruner import Pruner
from lib_toolkit.ui.screen import Updates
from lib_toolkit.ui.visitors import visitor_of
from lib_toolkit.ui.workspace import Controls, Workspace

_CONTROLS = ("name", "precision", "format", "keep_ema", "fix_clip", "drop_unknown")
"""The controls whose values every action gets, in the order of the fields of Controls."""

_POINTED = (
    *("architecture", "class", "component", "import_source", "import_component", "export_name", "export_format"),
)
"""The same for the Advanced panel, in the order of the fields of Pointed."""

_ANSWERED = (
    *("source", "name", "precision", "format", "status", "unsaved", "progress", "cancel"),
    *("identity", "components", "saving"),
    *(f"{name}{part}" for name in ("half", "keep_ema", "fix_clip", "drop_unknown") for part in ("_group", "_told", "")),
    *("architecture", "class", "component", "import_source", "import_component", "export_name"),
    *("import", "export", "undo", "edits", "details", "tensors"),
    *("report", "report_view", "report_open", "report_html", "report_json"),
    *("compare_a", "compare_b", "compare_third", "compare_set", "compare_view", "compare_open"),
    *("compare_html", "compare_json", "compare_more"),
    *("autoprune_run", "autoprune_preview", "autoprune_cancel", "autoprune_progress", "autoprune_view"),
)
"""The parts of the page that an answer may change."""

Handler = Callable[..., list[Any]]


def build(
    host: Host, jobs: Jobs | None = None, sessions: Workspace | None = None, pruner: Pruner | None = None
) -> gr.Blocks:
    """The tab for a host. ``jobs``: where long work runs; the server that ends closes it. ``sessions``: where the
    browser tabs' sessions are kept, and ``pruner``: who runs Autoprune, when they are to outlive this page."""
    actions = Actions(host, jobs or Jobs(), sessions, pruner)
    with compat.blocks() as page, gr.Column(elem_id="model_toolkit", elem_classes=["model-toolkit"]):
        session = gr.State("")
        parts = toprow.build(host)
        with gr.Tabs(elem_id="model_toolkit_tabs"):
            with compat.tab("Basic", "model_toolkit_tab_basic"):
                parts |= basic.build()
            with compat.tab("Advanced", "model_toolkit_tab_advanced"):
                parts |= advanced.build(host)
            with compat.tab("Compare", "model_toolkit_tab_compare"):
                parts |= compare.build(host)
            with compat.tab("Autoprune", "model_toolkit_tab_autoprune") as parts["tab_autoprune"]:
                parts |= autoprune.build()
        wiring = _Wiring(session, parts)
        _wire_top(page, actions, wiring)
        _wire_advanced(actions, wiring)
        _wire_compare(actions, wiring)
        _wire_autoprune(actions, wiring)
        compat.keep_out_of_defaults(page)
    return page


class _Wiring:
    """The page's parts, and how an event of one of them is answered."""

    def __init__(self, session: gr.State, parts: dict[str, Any]) -> None:
        self.session = session
        self.parts = parts
        self.controls = [parts[name] for name in _CONTROLS]
        self.pointed = [parts[name] for name in _POINTED]
        self.outputs = [session, *(parts[name] for name in _ANSWERED)]

    def on(self, part: str, event: str, handler: Handler, *inputs: Any) -> None:  # noqa: ANN401
        compat.on(self.parts[part], event, handler, [self.session, *inputs], self.outputs)


def _wire_top(page: gr.Blocks, actions: Actions, wiring: _Wiring) -> None:
    parts, controls = wiring.parts, wiring.controls

    def refresh(key: str) -> list[Any]:
        return _answer(actions.refresh(key))

    def load(key: str, label: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.load(key, label, Controls(*values)))

    def change(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.change(key, Controls(*values)))

    def halve(key: str, half: bool, *values: Any) -> list[Any]:  # noqa: ANN401
        name, _, *others = values
        return _answer(actions.change(key, Controls(name, "auto" if half else "keep", *others)))

    def save(request: gr.Request, key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.save(key, Controls(*values), visitor_of(request)))

    def arrive(key: str) -> list[Any]:
        return _answer(actions.refresh(key, arrives=True))

    compat.on(page, "load", arrive, [wiring.session], wiring.outputs)
    wiring.on("refresh", "click", refresh)
    wiring.on("load", "click", load, parts["source"], *controls)
    wiring.on("save", "click", save, *controls)
    wiring.on("clear", "click", lambda key: _answer(actions.clear(key)))
    wiring.on("cancel", "click", lambda key: _answer(actions.cancel(key)))
    wiring.on("poll", "click", lambda key: _answer(actions.poll(key)))
    wiring.on("half", "input", halve, parts["half"], *controls)
    for part in ("precision", "format", "keep_ema", "fix_clip", "drop_unknown"):
        wiring.on(part, "input", change, *controls)
    for event in ("blur", "submit"):
        wiring.on("name", event, change, *controls)


def _wire_advanced(actions: Actions, wiring: _Wiring) -> None:
    editing, pointed, controls = actions.editing, wiring.pointed, wiring.controls
    count = len(_POINTED)

    def point(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(editing.point(key, Pointed(*values)))

    def bring_in(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(editing.bring_in(key, Pointed(*values[:count]), Controls(*values[count:])))

    def export(request: gr.Request, key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        told = editing.export(key, Pointed(*values[:count]), Controls(*values[count:]), visitor_of(request))
        return _answer(told)

    def undo(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(editing.undo(key, Controls(*values)))

    for part in ("architecture", "class", "component"):
        wiring.on(part, "input", point, *pointed)
    wiring.on("import", "click", bring_in, *pointed, *controls)
    wiring.on("export", "click", export, *pointed, *controls)
    wiring.on("undo", "click", undo, *controls)
    wiring.on("report", "click", lambda key: _answer(editing.report(key)))


def _wire_compare(actions: Actions, wiring: _Wiring) -> None:
    parts, comparing = wiring.parts, actions.comparing
    metrics = parts["compare_metrics"]

    def pair(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(comparing.pair(key, *values))

    def several(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(comparing.several(key, *values))

    sides = (parts["compare_a"], parts["compare_b"])
    wiring.on("compare_pair", "click", pair, *sides, metrics, parts["compare_at_lower"], parts["compare_third"])
    wiring.on("compare_several", "click", several, parts["compare_set"], metrics)


def _wire_autoprune(actions: Actions, wiring: _Wiring) -> None:
    autopruning = actions.autopruning

    def run(request: gr.Request, key: str) -> list[Any]:
        return _answer(autopruning.run(key, visitor_of(request)))

    def cancel(request: gr.Request, key: str) -> list[Any]:
        return _answer(autopruning.cancel(key, visitor_of(request)))

    wiring.on("autoprune_run", "click", run)
    wiring.on("autoprune_preview", "click", lambda key: _answer(autopruning.preview(key)))
    wiring.on("autoprune_cancel", "click", cancel)
    for part, event in (("autoprune_look", "click"), ("tab_autoprune", "select")):
        wiring.on(part, event, lambda key: _answer(autopruning.look(key)))


def _answer(answer: tuple[str, Updates]) -> list[Any]:
    """The session's key and one value for each part, as Gradio wants them."""
    key, updates = answer
    return [key, *(compat.change(**updates[name]) if name in updates else compat.keep() for name in _ANSWERED)]
