"""The Autoprune panel: how the run goes, what waits in the drop folder and what would become of it, what the last run
did with each file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_toolkit.ui.screen import IDLE


def build() -> dict[str, Any]:
    """The panel's components by name, with their ids ``model_toolkit_<name>``."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="model_toolkit_autoprune", elem_classes=["model-toolkit-top"]):
        for name, label, may in (
            *(("run", "Run now", True), ("preview", "Preview", True)),
            *(("look", "Look again", True), ("cancel", "Stop", False)),
        ):
            parts[f"autoprune_{name}"] = gr.Button(
                label,
                interactive=may,
                variant="primary" if name == "run" else "secondary",
                elem_id=f"model_toolkit_autoprune_{name}",
                min_width=120,
            )
    parts["autoprune_progress"] = gr.HTML(IDLE, elem_id="model_toolkit_autoprune_progress")
    parts["autoprune_view"] = gr.HTML("", elem_id="model_toolkit_autoprune_view")
    return parts
