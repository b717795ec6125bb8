"""The row on top: which model, and under which name, precision and format it is saved."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_toolkit.edits.components import new_names
from lib_toolkit.edits.precision import PRECISIONS
from lib_toolkit.hosts.host import Host
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.ui import compat
from lib_toolkit.ui.screen import IDLE


def build(host: Host) -> dict[str, Any]:
    """The row's components by name, with their ids ``model_toolkit_<name>``."""
    precision, file_format = host.setting("precision", "auto"), host.setting("format", "safetensors")
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="model_toolkit_top", elem_classes=["model-toolkit-top"]):
        parts["source"] = gr.Dropdown(
            [*(entry.label for entry in host.models()), *new_names()],
            value=None,
            label="Source",
            allow_custom_value=compat.REFUSES_UNKNOWN_CHOICES,
            elem_id="model_toolkit_source",
            scale=8,
            min_width=320,
        )
        parts["refresh"] = gr.Button("Refresh", elem_id="model_toolkit_refresh", scale=1, min_width=90)
        parts["load"] = gr.Button("Load", variant="primary", elem_id="model_toolkit_load", scale=1, min_width=90)
    with gr.Row(elem_id="model_toolkit_target", elem_classes=["model-toolkit-top"]):
        parts["name"] = gr.Textbox(
            label="Name", max_lines=1, elem_id="model_toolkit_name", scale=5, min_width=320, placeholder="after loading"
        )
        parts["precision"] = gr.Dropdown(
            list(PRECISIONS),
            value=precision if precision in PRECISIONS else "auto",
            label="Precision",
            allow_custom_value=compat.REFUSES_UNKNOWN_CHOICES,
            elem_id="model_toolkit_precision",
            scale=1,
            min_width=120,
        )
        parts["format"] = gr.Dropdown(
            list(SUFFIXES),
            value=file_format if file_format in SUFFIXES else "safetensors",
            label="Format",
            allow_custom_value=compat.REFUSES_UNKNOWN_CHOICES,
            elem_id="model_toolkit_format",
            scale=1,
            min_width=180,
        )
        parts["save"] = gr.Button("Save", variant="primary", elem_id="model_toolkit_save", scale=1, min_width=90)
        parts["clear"] = gr.Button("Clear", elem_id="model_toolkit_clear", scale=1, min_width=90)
    with gr.Row(elem_id="model_toolkit_state", elem_classes=["model-toolkit-state"]):
        with gr.Column(scale=8, min_width=200):
            parts["status"] = gr.HTML("", elem_id="model_toolkit_status")
            parts["unsaved"] = gr.HTML("", elem_id="model_toolkit_unsaved")
            parts["progress"] = gr.HTML(IDLE, elem_id="model_toolkit_progress")
        parts["cancel"] = gr.Button("Cancel", interactive=False, elem_id="model_toolkit_cancel", scale=1, min_width=90)
    parts["poll"] = gr.Button("Ask", elem_id="model_toolkit_poll", elem_classes=["model-toolkit-hidden"])
    return parts
