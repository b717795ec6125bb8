"""The Basic panel: what the model is, what was found and what can be done about it, what Save will write."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_toolkit.ui.panel import REMEDIES
from lib_toolkit.ui.screen import NOTHING_LOADED


def build() -> dict[str, Any]:
    """The panel's components by name, with their ids ``model_toolkit_<name>``."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="model_toolkit_basic", elem_classes=["model-toolkit-panel"]):
        with gr.Column(scale=3, min_width=320):
            parts["identity"] = gr.HTML(NOTHING_LOADED, elem_id="model_toolkit_identity")
            parts["components"] = gr.HTML("", elem_id="model_toolkit_components")
        with gr.Column(scale=2, min_width=320):
            for name, label in REMEDIES.items():
                parts |= _remedy(name, label)
            parts["saving"] = gr.HTML("", elem_id="model_toolkit_saving")
    return parts


def _remedy(name: str, label: str) -> dict[str, Any]:
    """A finding in words, and the box that changes the plan."""
    with gr.Column(
        visible=False, elem_id=f"model_toolkit_{name}_group", elem_classes=["model-toolkit-finding"], min_width=240
    ) as group:
        told = gr.HTML("", elem_id=f"model_toolkit_{name}_told")
        box = gr.Checkbox(False, label=label, elem_id=f"model_toolkit_{name}")
    return {f"{name}_group": group, f"{name}_told": told, name: box}
