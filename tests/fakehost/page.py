"""The host's page: quick settings, tabs, settings, extensions; its scripts and style sheets in the page's head."""

from __future__ import annotations

import html
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from tests.fakehost.defaults import StartValues
from tests.fakehost.host import FakeHost

MAJOR = int(gr.__version__.partition(".")[0])
JS = "_js" if MAJOR < 4 else "js"
SCRIPT = Path(__file__).with_name("script.js")


def build(host: FakeHost) -> gr.Blocks:
    """A new page, as at the start and at each Reload UI; asks the extensions for their settings and tabs."""
    host.script_callbacks.ui_settings_callback()
    settings = _settings(host)
    tabs = [(_txt2img(), "txt2img", "txt2img"), *host.script_callbacks.ui_tabs_callback()]
    tabs += [(settings, "Settings", "settings"), (_extensions(host), "Extensions", "extensions")]
    hidden = getattr(host.shared.opts, "hidden_tabs", [])
    start_values = StartValues(host.data_path)
    with gr.Blocks(analytics_enabled=False, title="Stable Diffusion") as demo:
        with gr.Row(elem_id="quicksettings"):
            _quick_settings(host, demo)
        with gr.Tabs(elem_id="tabs"):
            for interface, label, name in tabs:
                if label not in hidden:
                    with gr.TabItem(label, id=name, elem_id=f"tab_{name}"):
                        interface.render()
                if name not in {"settings", "extensions"}:
                    start_values.add_block(interface, name)
    start_values.write()
    return demo


def _txt2img() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as block:
        gr.Textbox(label="Prompt", elem_id="txt2img_prompt", lines=3)
        gr.Button("Generate", elem_id="txt2img_generate")
    return block


def _quick_settings(host: FakeHost, demo: gr.Blocks) -> None:
    if not host.flavour.forge:
        checkpoints = gr.Dropdown(
            host.sd_models.checkpoint_tiles(),
            label="Stable Diffusion checkpoint",
            elem_id="setting_sd_model_checkpoint",
            interactive=True,
        )
        refresh = gr.Button("🔄", elem_id="refresh_sd_model_checkpoint")
        vaes = gr.Dropdown(_vae_choices(host), label="SD VAE", elem_id="setting_sd_vae", interactive=True)
        refresh_vae = gr.Button("🔄", elem_id="refresh_sd_vae")
        refresh.click(_refreshing(host.sd_models.list_models, host.sd_models.checkpoint_tiles), [], [checkpoints])
        refresh_vae.click(_refreshing(host.sd_vae.refresh_vae_list, lambda: _vae_choices(host)), [], [vaes])
        return
    found, parts = host.main_entry.refresh_models()
    checkpoints = gr.Dropdown(list(found), label="Checkpoint", elem_classes=["model_selection"], interactive=True)
    refresh = gr.Button("🔄", elem_id="forge_refresh_checkpoint")
    modules = gr.Dropdown(list(parts), label="VAE / Text Encoder", multiselect=True, interactive=True)

    def refresh_both():
        first, second = host.main_entry.refresh_models()
        return gr.update(choices=list(first)), gr.update(choices=list(second))

    refresh.click(refresh_both, [], [checkpoints, modules], queue=False)


def _vae_choices(host: FakeHost) -> list[str]:
    return ["Automatic", "None", *host.sd_vae.vae_dict]


def _refreshing(refresh: Callable[[], object], choices: Callable[[], list[str]]) -> Callable[[], Any]:
    def refreshed():
        refresh()
        return gr.update(choices=choices())

    return refreshed


def _settings(host: FakeHost) -> gr.Blocks:
    opts = host.shared.opts
    sections: dict[tuple[str, str], list[str]] = {}
    for key, info in opts.data_labels.items():
        sections.setdefault(tuple(info.section or ("other", "Other")), []).append(key)
    with gr.Blocks(analytics_enabled=False) as block:
        with gr.Row():
            submit = gr.Button("Apply settings", variant="primary", elem_id="settings_submit")
            restart = gr.Button("Reload UI", variant="primary", elem_id="settings_restart_gradio")
        result = gr.HTML(elem_id="settings_result")
        components = {}
        with gr.Tabs(elem_id="settings"):
            for (name, title), keys in sections.items():
                with gr.TabItem(title, id=f"settings_{name}", elem_id=f"settings_{name}"):
                    for key in keys:
                        components[key] = _setting(opts, key)

    def apply(*values):
        changed = []
        for key, value in zip(components, values, strict=True):
            assert opts.same_type(value, opts.data_labels[key].default), f"Bad value for setting {key}: {value}"
            if opts.set(key, value):
                changed.append(key)
        opts.save(host.shared.config_filename)
        return f"{len(changed)} settings changed{': ' if changed else ''}{', '.join(changed)}."

    with block:
        submit.click(apply, list(components.values()), [result])
        restart.click(host.shared.state.request_restart, [], [], **{JS: "restart_reload"})
    return block


def _setting(opts: Any, key: str) -> Any:
    info = opts.data_labels[key]
    usual = {str: gr.Textbox, int: gr.Number, bool: gr.Checkbox}
    component = info.component or usual[type(info.default)]
    arguments = info.component_args() if callable(info.component_args) else info.component_args or {}
    made = component(label=info.label, value=getattr(opts, key), elem_id=f"setting_{key}", **arguments)
    gr.HTML(info.comment_before + info.comment_after, elem_classes=["settings-comment"])
    return made


def _extensions(host: FakeHost) -> gr.Blocks:
    rows = ""
    for extension in host.extensions.extensions:
        name, checked = html.escape(extension.name, quote=True), " checked" if extension.enabled else ""
        rows += f'<tr><td><label><input name="enable_{name}" type="checkbox"{checked}> {name}</label></td></tr>'
    with gr.Blocks(analytics_enabled=False) as block:
        apply = gr.Button("Apply and restart UI", variant="primary", elem_id="extensions_apply")
        disabled = gr.Textbox(elem_id="extensions_disabled_list", visible=False)
        gr.HTML(f'<table id="extensions">{rows}</table>')

        def apply_and_restart(names):
            host.shared.opts.data["disabled_extensions"] = json.loads(names)
            host.shared.opts.save(host.shared.config_filename)
            host.shared.state.request_restart()

        apply.click(apply_and_restart, [disabled], [], **{JS: "extensions_apply"})
    return block


def put_scripts_on_the_page(host: FakeHost) -> None:
    """Every page that Gradio makes from now on carries the host's script, those of the extensions, and their CSS."""
    templates = gr.routes.templates
    original = getattr(templates, "fakehost_original", templates.TemplateResponse)
    templates.fakehost_original = original
    files = [str(SCRIPT)] + [path for _, path in host.scripts.list_scripts("javascript", ".js")]
    head = "".join(f'<script type="text/javascript" src="{_address(path)}"></script>' for path in files)
    sheets = host.scripts.list_files_with_name("style.css")
    body = "".join(f'<link rel="stylesheet" property="stylesheet" href="{_address(path)}">' for path in sheets)

    def template_response(*args, **kwargs):
        response = original(*args, **kwargs)
        response.body = response.body.replace(b"</head>", f"{head}</head>".encode(), 1)
        response.body = response.body.replace(b"</body>", f"{body}</body>".encode(), 1)
        response.init_headers()
        return response

    templates.TemplateResponse = template_response


def _address(path: str) -> str:
    return f"{'gradio_api/' if MAJOR >= 5 else ''}file={path}?{os.path.getmtime(path)}"


def allowed_paths(host: FakeHost) -> list[str]:
    return [*host.cmd_opts.gradio_allowed_path, *map(str, host.roots), str(SCRIPT.parent)]


def accepted(function: Callable[..., Any], **wanted: Any) -> dict[str, Any]:
    """Those of the options that this Gradio's function takes."""
    known = inspect.signature(function).parameters
    return {key: value for key, value in wanted.items() if key in known}
