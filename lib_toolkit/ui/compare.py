"""The Compare panel: two models and perhaps a third, or a set of them, and what the last comparison said."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_toolkit.hosts.host import Host
from lib_toolkit.ui import compat
from lib_toolkit.ui.compare_actions import (
    LOADED,
    NO_COMPARISON,
    NO_THIRD,
    PAIR_METRICS,
    set_choices,
    side_choices,
    third_choices,
)


def build(host: Host) -> dict[str, Any]:
    """The panel's components by name, with their ids ``model_toolkit_<name>``."""
    entries = host.models()
    sides, several = side_choices(entries), set_choices(entries)
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="model_toolkit_compare", elem_classes=["model-toolkit-panel"]):
        with gr.Column(scale=1, min_width=320), gr.Group(elem_classes=["model-toolkit-group"]):
            parts["compare_a"] = _dropdown("compare_a", "A", sides, LOADED)
            parts["compare_b"] = _dropdown("compare_b", "B", sides, None)
            parts["compare_third"] = _dropdown(
                "compare_third", "Third model M: is it a merge of these two?", third_choices(entries), NO_THIRD
            )
            parts["compare_at_lower"] = gr.Checkbox(
                False, label="At the lower precision of the two", elem_id="model_toolkit_compare_at_lower"
            )
            parts["compare_pair"] = gr.Button("Compare A with B", elem_id="model_toolkit_compare_pair")
        with gr.Column(scale=1, min_width=320), gr.Group(elem_classes=["model-toolkit-group"]):
            parts["compare_set"] = _dropdown("compare_set", "Set: models, or folders of them", several, [], True)
            parts["compare_several"] = gr.Button("Compare the set", elem_id="model_toolkit_compare_several")
    # CosSim belongs to pairs alone; a set leaves it out.
    parts["compare_metrics"] = gr.CheckboxGroup(
        list(PAIR_METRICS),
        value=list(PAIR_METRICS),
        label="Figures in the tables (cossim: of A and B only)",
        elem_id="model_toolkit_compare_metrics",
    )
    with gr.Column(elem_id="model_toolkit_comparison"):
        parts |= _results()
    return parts


def _results() -> dict[str, Any]:
    parts: dict[str, Any] = {"compare_open": gr.HTML("", elem_id="model_toolkit_compare_open")}
    files = {
        "compare_html": "Comparison as a page",
        "compare_json": "Comparison as JSON",
        "compare_more": "Pictures (PNG), and of a set tables (CSV)",
    }
    with gr.Row(elem_classes=["model-toolkit-top"]):
        for name, label in files.items():
            parts[name] = gr.File(label=label, interactive=False, visible=False, elem_id=f"model_toolkit_{name}")
    parts["compare_view"] = gr.HTML(NO_COMPARISON, elem_id="model_toolkit_compare_view")
    return parts


def _dropdown(name: str, label: str, choices: list[str], value: object, several: bool = False) -> Any:  # noqa: ANN401
    return gr.Dropdown(
        choices,
        value=value,
        label=label,
        multiselect=several,
        allow_custom_value=compat.REFUSES_UNKNOWN_CHOICES,
        elem_id=f"model_toolkit_{name}",
        min_width=160,
    )
