"""Reports of the published comparison notebook: ours written in its form, its own read back and gathered again.

Source of the form: 6DammK9/nai-anime-pure-negative-prompt, chapter 03, ``v1/mega_cmp.ipynb``. The JSON is an object of
``da``, ``db``, ``err`` and ``kv`` with sorted keys, indented by 4. Its files may hold bare NaN and Infinity, ours do
not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.analysis.compare import figures
from lib_toolkit.analysis.compare.alignment import Row
from lib_toolkit.analysis.compare.results import A, B, Comparison, file_keys
from lib_toolkit.architectures import prefixes
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.reports.numbers import counted

_HOMES = (prefixes.MAIN, prefixes.VAE, "cond_stage_model.", "conditioner.")
_LARGEST = 256 << 20
_HUGE = 1e15
_FIELDS = ("da", "db", "err", "kv")

METRICS = ("l0", "l1", "l2", "cossim")
"""Metrics of which a published report holds one."""


@dataclass(frozen=True)
class Published:
    """A report in the published form. Values that are no numbers stay as they are."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    failed: tuple[str, ...]
    values: Mapping[str, float]

    def panels(self) -> dict[str, list[float]]:
        """Values of the UNet by panel: attn1, attn2, other."""
        return figures.by_panel(self.values)

    def components(self) -> dict[str, list[float]]:
        """Values of all tensors by component: unet, te, te0, te1, vae, and rest for what the matrices call other."""
        return {"rest" if name == "other" else name: own for name, own in figures.by_component(self.values).items()}

    @property
    def not_numbers(self) -> int:
        """How many values are NaN or infinite; no figure counts them."""
        return sum(not math.isfinite(value) for value in self.values.values())


def published(comparison: Comparison, metric: str) -> Published:
    """A comparison as the published tool would report it for one metric.

    Tensors that meet under two names stand under the name of the checkpoint's file; those of a NovelAI text encoder
    under ``nai.`` and their name, while both names are in ``da`` and ``db``, as there.
    """
    values: dict[str, float] = {}
    renamed: tuple[list[Row], list[Row]] = ([], [])
    failed: list[Row] = []
    for entry in comparison.not_compared:
        if len({cell.key for cell in entry.row.cells if cell is not None}) == 1:
            failed.append(entry.row)
        else:  # to the published tool two names are two things
            renamed[A].append(entry.row)
            renamed[B].append(entry.row)
    for one in comparison.compared:
        name = _name(comparison, one.row)
        if name.startswith("nai."):
            renamed[A].append(one.row)
            renamed[B].append(one.row)
        if _shapes(one.row) > 1 and not one.renamed:
            failed.append(one.row)
            continue
        value = one.measures.figure(metric)
        if value is not None:
            values[f"{one.row.component}.{one.row.key}" if name in values else name] = value
    return Published(
        tuple(sorted(file_keys((*comparison.only_a, *renamed[A]), A))),
        tuple(sorted(file_keys((*comparison.only_b, *renamed[B]), B))),
        tuple(sorted(file_keys(failed, A))),
        values,
    )


def _shapes(row: Row) -> int:
    return len({cell.tensor.shape for cell in row.cells if cell is not None})


def _name(comparison: Comparison, row: Row) -> str:
    names = [cell.key for cell in row.cells if cell is not None]
    if len(set(names)) == 1:
        return names[0]
    component = next((one for one in comparison.components if one.id == row.component), None)
    matches = component.matches if component is not None else ()
    for match, name in zip(matches, names, strict=False):
        if match is not None and match.layout == "nai":
            return f"nai.{name}"
    return next((name for name in names if name.startswith(_HOMES)), names[0])


def published_text(report: Published) -> str:
    """The report as the published tool writes it."""
    table = {
        "da": list(report.only_a),
        "db": list(report.only_b),
        "err": list(report.failed),
        "kv": {key: report.values[key] for key in sorted(report.values)},
    }
    return json.dumps(table, indent=4, sort_keys=True) + "\n"


def read_published(path: Path) -> Published:
    """Read a report of the published tool. Raises FormatError with a sentence for anything else."""
    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path} is too large for a comparison report; name the JSON file of one.")
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}; check the name.") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{path} is not JSON text; name a comparison report with da, db, err and kv.") from None
    if not isinstance(table, dict) or not set(_FIELDS) <= table.keys():
        raise FormatError(f"{path} is no comparison report: it has no da, db, err and kv; name the JSON file of one.")
    values = table["kv"]
    lists = [table[name] for name in _FIELDS[:3]]
    if not isinstance(values, dict) or any(type(value) not in (int, float) for value in values.values()):
        raise FormatError(f"{path} has a kv that is not a list of names with numbers; it is damaged, make it again.")
    if any(not isinstance(one, list) or any(not isinstance(key, str) for key in one) for one in lists):
        raise FormatError(f"{path} has a da, db or err that is not a list of names; it is damaged, make it again.")
    da, db, err = (tuple(one) for one in lists)
    try:
        return Published(da, db, err, {key: float(value) for key, value in values.items()})
    except OverflowError:
        raise FormatError(f"{path} has a number in kv that is too large; the file is damaged, make it again.") from None


def check_metric(metric: str) -> None:
    """Raises UsageError for a metric that no published report holds."""
    if metric not in METRICS:
        raise UsageError(
            f"A published report holds l0, l1, l2 or cossim, never {metric}; name the one that it was made with."
        )


def published_lines(report: Published, metric: str) -> list[str]:
    """Each group with its figure to four decimals, as the published titles print it, and what was not compared.

    Raises UsageError for a metric that no published report holds.
    """
    check_metric(metric)
    lines = [_line(name, metric, values) for name, values in report.panels().items()]
    lines += [_line(name, metric, values) for name, values in report.components().items()]
    lines.append(
        f"only in A: {len(report.only_a):,}, only in B: {len(report.only_b):,}, failed: {len(report.failed):,}"
    )
    if report.not_numbers:
        lines.append(f"not numbers: {report.not_numbers:,}")
    return lines


def decimals(value: float) -> str:
    """A figure to four decimals, as the published titles print it; huge ones in powers of ten."""
    return f"{value:.4f}" if abs(value) < _HUGE else f"{value:.4e}"


def _line(name: str, metric: str, values: list[float]) -> str:
    return f"{name}: {metric.upper()}={decimals(figures.figure(metric, values))} ({counted(len(values), 'tensor')})"


def published_json(report: Published, metric: str) -> dict[str, object]:
    """What a published report adds up to, as plain data; a figure beyond all numbers is None.

    Raises UsageError for a metric that no published report holds.
    """
    check_metric(metric)
    groups = {**report.panels(), **report.components()}
    return {
        "schema": 1,
        "metric": metric,
        "groups": [
            {"name": name, "tensors": len(values), "figure": _finite(figures.figure(metric, values))}
            for name, values in groups.items()
        ],
        "only_a": list(report.only_a),
        "only_b": list(report.only_b),
        "failed": list(report.failed),
        "not_numbers": report.not_numbers,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
