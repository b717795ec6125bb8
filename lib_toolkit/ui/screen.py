"""What handlers answer: properties of the page's parts by name, without any type of Gradio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from lib_toolkit.jobs import JobView
from lib_toolkit.reports.html import EMPTY, Html, tag
from lib_toolkit.reports.numbers import human_bytes, human_time

Updates: TypeAlias = "dict[str, dict[str, object]]"
"""Changed properties of parts of the page; what is not named stays as it is."""

NOTHING_LOADED = tag(
    "p",
    "Nothing is loaded. Choose a model under Source and press Load: only its header is read, and nothing changes on "
    "disk until you press Save.",
    class_="model-toolkit-empty",
)

IDLE = tag("div", class_="model-toolkit-progress")


def status(message: str, tone: str = "info", saved: str | None = None) -> Updates:
    """A sentence in the status line. ``tone``: ``info``, ``good``, ``error`` or ``busy``; errors are announced.

    ``saved`` marks that a file came into being (``<kind>:<counter>``), so that the page refreshes the host's lists.
    """
    shown = tag(
        "p",
        message,
        role="alert" if tone == "error" else "status",
        class_=f"model-toolkit-status model-toolkit-{tone}",
        data_model_toolkit_saved=saved,
    )
    return {"status": {"value": shown}}


def idle() -> Updates:
    """No job runs."""
    return {"progress": {"value": IDLE}, "cancel": {"interactive": False}}


def running(view: JobView, step: int) -> Updates:
    """A job runs: the bar, its figures, and the mark that makes the page ask again."""
    return {
        "progress": {"value": progress_html(view, step)},
        "cancel": {"interactive": not view.cancelling},
    }


def progress_html(view: JobView, step: int, every: int = 0) -> Html:
    """The bar of a running job; without a known total it only moves. The page asks again after ``every`` ms."""
    now = view.status
    if now.total:
        percent: str | None = f"{100 * now.share:.0f}"
        figures = f"{human_bytes(now.done)} of {human_bytes(now.total)}"
        if now.speed:
            figures += f", {human_bytes(int(now.speed))}/s"
        if now.left is not None and now.done < now.total:
            figures += f", {human_time(now.left)} left"
        fill = tag("div", class_="model-toolkit-fill", style=f"width:{100 * now.share:.1f}%")
    else:
        percent, figures = None, ""
        fill = tag("div", class_="model-toolkit-fill model-toolkit-unsure")
    # What begins with a file's name keeps its letters.
    phase = now.phase if ": " in now.phase else now.phase[:1].upper() + now.phase[1:]
    phase = "Cancelling" if view.cancelling else phase
    return tag(
        "div",
        tag(
            "div",
            fill,
            class_="model-toolkit-track",
            role="progressbar",
            aria_label=view.name,
            aria_valuemin="0",
            aria_valuemax="100",
            aria_valuenow=percent,
        ),
        tag("p", f"{phase}: {figures}" if percent else f"{phase} …"),
        class_="model-toolkit-progress",
        data_model_toolkit_step=str(step),
        data_model_toolkit_every=str(every) if every else None,
    )


def merge(*updates: Mapping[str, Mapping[str, object]]) -> Updates:
    """Updates one after another; later properties replace earlier ones of the same part."""
    merged: Updates = {}
    for update in updates:
        for part, properties in update.items():
            merged.setdefault(part, {}).update(properties)
    return merged


def blank() -> Updates:
    """The panel of a session without a model."""
    parts: Updates = {
        "identity": {"value": NOTHING_LOADED},
        "components": {"value": EMPTY},
        "saving": {"value": EMPTY},
        "name": {"value": ""},
    }
    return parts
