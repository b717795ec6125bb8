"""The Advanced panel: take parts out, put parts in, and everything that is known of the file and its tensors."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_toolkit.hosts.host import Host
from lib_toolkit.reports.memory import edits_html
from lib_toolkit.ui import compat
from lib_toolkit.ui.choices import EXPORT_FORMATS
from lib_toolkit.ui.reporting import NO_REPORT


def build(host: Host) -> dict[str, Any]:
    """The panel's components by name, with their ids ``model_toolkit_<name>``."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="model_toolkit_advanced", elem_classes=["model-toolkit-panel"]):
        with gr.Column(scale=2, min_width=320):
            parts |= _aims()
            parts |= _imports(host)
            parts |= _exports(host)
        with gr.Column(scale=3, min_width=320):
            parts["edits"] = gr.HTML(edits_html("", (), ()), elem_id="model_toolkit_edits")
            parts["undo"] = gr.Button("Undo the last change", interactive=False, elem_id="model_toolkit_undo")
            parts["details"] = gr.HTML("", elem_id="model_toolkit_details")
    parts["tensors"] = gr.HTML("", elem_id="model_toolkit_tensors")
    # Last, so that nothing moves when a report comes in.
    with gr.Column(elem_id="model_toolkit_reporting", elem_classes=["model-toolkit-panel"]):
        parts |= _report()
    return parts


def _aims() -> dict[str, Any]:
    with gr.Row(elem_classes=["model-toolkit-top"]):
        return {name: _dropdown(name, name.capitalize(), []) for name in ("architecture", "class", "component")}


def _imports(host: Host) -> dict[str, Any]:
    labels = [entry.label for entry in host.models()]
    with gr.Group(elem_classes=["model-toolkit-group"]):
        source = _dropdown("import_source", "Import from", labels)
        component = _dropdown("import_component", "Component to import", [])
        button = gr.Button("Import", interactive=False, elem_id="model_toolkit_import")
    return {"import_source": source, "import_component": component, "import": button}


def _exports(host: Host) -> dict[str, Any]:
    file_format = host.setting("component_format", "safetensors")
    with gr.Group(elem_classes=["model-toolkit-group"]):
        name = gr.Textbox(
            label="Name of the exported file",
            max_lines=1,
            placeholder="after loading",
            elem_id="model_toolkit_export_name",
        )
        formats = list(EXPORT_FORMATS)
        chosen = _dropdown("export_format", "Format", formats, file_format if file_format in formats else formats[0])
        button = gr.Button("Export", interactive=False, elem_id="model_toolkit_export")
    return {"export_name": name, "export_format": chosen, "export": button}


def _report() -> dict[str, Any]:
    parts: dict[str, Any] = {
        "report": gr.Button("Make the detailed report", interactive=False, elem_id="model_toolkit_report")
    }
    parts["report_view"] = gr.HTML(NO_REPORT, elem_id="model_toolkit_report_view")
    parts["report_open"] = gr.HTML("", elem_id="model_toolkit_report_open")
    with gr.Row(elem_classes=["model-toolkit-top"]):
        for name, label in (("report_html", "Report as a page"), ("report_json", "Report as JSON")):
            parts[name] = gr.File(label=label, interactive=False, visible=False, elem_id=f"model_toolkit_{name}")
    return parts


def _dropdown(name: str, label: str, choices: list[str], value: object = None) -> Any:  # noqa: ANN401
    return gr.Dropdown(
        choices,
        value=value,
        label=label,
        allow_custom_value=compat.REFUSES_UNKNOWN_CHOICES,
        elem_id=f"model_toolkit_{name}",
        min_width=160,
    )
