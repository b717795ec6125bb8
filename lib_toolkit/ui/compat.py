"""The few differences between Gradio 3.41, 4.40 and 6 that the tab meets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

REFUSES_UNKNOWN_CHOICES = int(gr.__version__.partition(".")[0]) >= 5
"""Whether this Gradio stops a dropdown's value that it does not know with an error of its own. It must be told to
let any value pass, so that our check answers with a sentence in the tab; earlier ones do so by themselves, and
when told keep what was typed as a filter in place of the choice."""


def accepted(function: Callable[..., Any], **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Those of the options that this version of the function knows. Forge wraps the events of components in objects
    that take anything; what counts is the event inside."""
    known = inspect.signature(getattr(function, "replaced_event", function)).parameters
    return {key: value for key, value in options.items() if key in known}


def on(
    component: Any,  # noqa: ANN401
    event: str,
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
) -> None:
    """Call ``handler`` on an event of the component: at once (no queue), without overlays, not as a public API."""
    listener = getattr(component, event)
    options = accepted(listener, queue=False, show_progress="hidden")
    # Gradio 6 says by visibility what earlier ones said by the name.
    options |= accepted(listener, api_visibility="private") or {"api_name": False}
    listener(handler, list(inputs), list(outputs), **options)


def keep() -> Any:  # noqa: ANN401
    """The answer of a handler that leaves a component as it is."""
    return gr.update()


def change(**options: Any) -> Any:  # noqa: ANN401
    """The answer of a handler that changes properties of a component."""
    return gr.update(**options)


def theme() -> Any:  # noqa: ANN401
    """Gradio's default looks with the system's own fonts: the stock themes ask a font server."""
    return gr.themes.Default(
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "Liberation Mono", "monospace"],
    )


def blocks() -> Any:  # noqa: ANN401
    """An empty page of our own. Gradio 6 takes the theme when the page is served, earlier ones here."""
    return gr.Blocks(title="Model Toolkit", analytics_enabled=False, **accepted(gr.Blocks.__init__, theme=theme()))


def keep_out_of_defaults(block: Any) -> None:  # noqa: ANN401
    """Tell WebUIs not to keep the present values of a block's components as those to start with: they would come
    before our settings, and a stale choice of models before the list of today."""
    block.do_not_save_to_config = True
    for child in getattr(block, "children", ()):
        keep_out_of_defaults(child)


def tab(title: str, elem_id: str) -> Any:  # noqa: ANN401
    """A tab whose parts are on the page while another one is shown; Gradio 6 must be told so."""
    return gr.Tab(title, elem_id=elem_id, **accepted(gr.Tab.__init__, render_children=True))
