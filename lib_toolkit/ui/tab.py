"""The Toolkit tab: puts the rows and panels together and wires their events; it decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_toolkit.hosts.host import Host
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import basic, compat, toprow
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.screen import Updates
from lib_toolkit.ui.workspace import Controls

_CONTROLS = ("name", "precision", "format", "keep_ema", "fix_clip", "drop_unknown")
"""The controls whose values every action gets, in the order of the fields of Controls."""

_ANSWERED = (
    *("source", "name", "precision", "format", "status", "progress", "cancel", "identity", "components", "saving"),
    *(f"{name}{part}" for name in ("half", "keep_ema", "fix_clip", "drop_unknown") for part in ("_group", "_told", "")),
)
"""The parts of the page that an answer may change."""

Handler = Callable[..., list[Any]]


def build(host: Host, jobs: Jobs | None = None) -> gr.Blocks:
    """The tab for a host. ``jobs``: where long work runs; the server that ends closes it."""
    actions = Actions(host, jobs or Jobs())
    with compat.blocks() as page, gr.Column(elem_id="model_toolkit", elem_classes=["model-toolkit"]):
        session = gr.State("")
        parts = {**toprow.build(host), **basic.build()}
        _wire(page, actions, session, parts)
    return page


def _wire(page: gr.Blocks, actions: Actions, session: gr.State, parts: dict[str, Any]) -> None:
    controls = [parts[name] for name in _CONTROLS]
    outputs = [session, *(parts[name] for name in _ANSWERED)]

    def on(part: str, event: str, handler: Handler, *inputs: Any) -> None:  # noqa: ANN401
        compat.on(parts[part], event, handler, [session, *inputs], outputs)

    def refresh(key: str) -> list[Any]:
        return _answer(actions.refresh(key))

    def load(key: str, label: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.load(key, label, Controls(*values)))

    def change(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.change(key, Controls(*values)))

    def halve(key: str, half: bool, *values: Any) -> list[Any]:  # noqa: ANN401
        name, _, *others = values
        return _answer(actions.change(key, Controls(name, "auto" if half else "keep", *others)))

    def save(key: str, *values: Any) -> list[Any]:  # noqa: ANN401
        return _answer(actions.save(key, Controls(*values)))

    compat.on(page, "load", refresh, [session], outputs)
    on("refresh", "click", refresh)
    on("load", "click", load, parts["source"], *controls)
    on("save", "click", save, *controls)
    on("clear", "click", lambda key: _answer(actions.clear(key)))
    on("cancel", "click", lambda key: _answer(actions.cancel(key)))
    on("poll", "click", lambda key: _answer(actions.poll(key)))
    on("half", "input", halve, parts["half"], *controls)
    for part in ("precision", "format", "keep_ema", "fix_clip", "drop_unknown"):
        on(part, "input", change, *controls)
    for event in ("blur", "submit"):
        on("name", event, change, *controls)


def _answer(answer: tuple[str, Updates]) -> list[Any]:
    """The session's key and one value for each part, as Gradio wants them."""
    key, updates = answer
    return [key, *(compat.change(**updates[name]) if name in updates else compat.keep() for name in _ANSWERED)]
