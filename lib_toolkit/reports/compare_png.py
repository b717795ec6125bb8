"""Pictures of a comparison as PNG, by matplotlib, which is an optional package and is imported here alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lib_toolkit.analysis.compare import figures
from lib_toolkit.analysis.compare.alignment import title_of
from lib_toolkit.analysis.compare.results import Comparison
from lib_toolkit.errors import UsageError
from lib_toolkit.reports.compare_published import Published, decimals
from lib_toolkit.reports.numbers import counted
from lib_toolkit.reports.plain import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE = "#3f63d2"
_LONGEST = 60
_LARGEST = 1e300
"""Values beyond it overflow while axes are laid out."""


def need_matplotlib() -> None:
    """Raises UsageError with what to do where the package is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "PNG pictures need the package matplotlib; install it with pip install matplotlib, or ask for --html."
        ) from None


def published_png(report: Published, metric: str) -> bytes:
    """The published picture: histograms of attn1, attn2 and other of the UNet, one below the other.

    10 × 10 inches at 100 dpi; as many bins as tensors, counts on a logarithmic axis, the figure in the title. Raises
    UsageError where nothing of the UNet was compared (then the published tool draws nothing).
    """
    panels = report.panels()
    if not panels:
        raise UsageError("No tensor of a UNet is in both, so that the published picture would be empty; ask for --png.")
    picture = _figure(10, 10)
    axes = [picture.add_subplot(3, 1, place + 1) for place in range(3)]
    for axis, (name, values) in zip(axes, panels.items(), strict=False):
        _histogram(axis, values, metric)
        axis.set_title(f"{name}: ${metric.upper()}={decimals(figures.figure(metric, values))}$")
    picture.tight_layout(pad=5.0)
    return _png(picture)


def comparison_png(comparison: Comparison, metric: str) -> bytes:
    """Ours: for each component the histogram of the tensors' figures and the relative distance of each block."""
    groups = [group for group in comparison.by_component() if group.members and group.component != "schedule"]
    if not groups:
        raise UsageError("Nothing was compared, so that there is nothing to draw.")
    blocks = comparison.by_block()
    picture = _figure(13, 1 + 3.2 * len(groups))
    for place, group in enumerate(groups):
        left = picture.add_subplot(len(groups), 2, 2 * place + 1)
        values = [value for one in group.members if (value := one.measures.figure(metric)) is not None]
        _histogram(left, values, metric, bins=min(100, max(1, len(values))))
        left.set_title(
            f"{group.name}: {metric} = {_shown(group.figure(metric))} ({counted(len(group.members), 'tensor')})"
        )
        right = picture.add_subplot(len(groups), 2, 2 * place + 2)
        shares = {one.name: one.measures.relative or 0.0 for one in blocks if one.component == group.component}
        _bars(right, shares)
        right.set_title(f"{title_of(group.component)}: relative distance by block")
    a, b = (_cut(model.name) for model in comparison.models)
    picture.suptitle(f"A: {a}     B: {b}", parse_math=False)
    picture.tight_layout(rect=(0, 0, 1, 0.98))
    return _png(picture)


def panels_png(report: Published, metric: str) -> bytes:
    """A published report, one histogram for each panel and each component that it has."""
    groups = {**report.panels(), **report.components()}
    if not groups:
        raise UsageError("The report holds no values, so that there is nothing to draw.")
    picture = _figure(10, 1 + 2.6 * len(groups))
    for place, (name, values) in enumerate(groups.items()):
        axis = picture.add_subplot(len(groups), 1, place + 1)
        _histogram(axis, values, metric, bins=min(200, max(1, len(values))))
        axis.set_title(
            f"{name}: {metric} = {decimals(figures.figure(metric, values))} ({counted(len(values), 'tensor')})"
        )
    picture.tight_layout()
    return _png(picture)


def _figure(width: float, height: float) -> Figure:
    """A figure without a window or any state that outlives it."""
    need_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100)


def _histogram(axis: Axes, values: Sequence[float], metric: str, bins: int | None = None) -> None:
    count = bins or max(1, len(values))
    edges = _edges(values, count)
    if edges is None:
        axis.hist(values, bins=count, log=True, color=_BLUE)
    else:
        axis.hist(values, bins=1, range=edges, log=True, color=_BLUE)
    axis.set_xlabel(metric.upper(), labelpad=20 if bins is None else 4)
    axis.set_ylabel("a.u." if bins is None else "tensors")


def _edges(values: Sequence[float], bins: int) -> tuple[float, float] | None:
    """Where a single bar goes for values so close to each other that their span has no room for the bins; None where
    it has room. Raises UsageError for values that cannot be drawn."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    top = max(abs(low), abs(high))
    if top > _LARGEST:
        raise UsageError(f"Values of up to {top:.1e} have no room in a picture; ask for --json.")
    # The span of equal values is 1: half on each side.
    if ((high - low) or 1.0) / bins > 4 * math.ulp(top):
        return None
    margin = max(0.5, abs(high) / 2)
    return low - margin, high + margin


def _bars(axis: Axes, shares: Mapping[str, float]) -> None:
    axis.bar(range(len(shares)), [100 * share for share in shares.values()], color=_BLUE)
    axis.set_xticks(range(len(shares)), list(shares), rotation=90, fontsize=7)
    axis.set_ylabel("‖A−B‖ / ‖A‖, %")


def _shown(value: float | None) -> str:
    return "none" if value is None else decimals(value)


def _cut(name: str) -> str:
    return printable(name, _LONGEST)


def _png(picture: Figure) -> bytes:
    data = io.BytesIO()
    picture.savefig(data, format="png", bbox_inches="tight", metadata={"Software": None})
    return data.getvalue()
