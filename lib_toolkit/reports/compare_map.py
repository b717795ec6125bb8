"""Carry out a model map: every pair's JSON and page in a folder, with an index that lets a run be taken up again.

The folder holds ``index.json`` (schema 1) and ``index.html``, for each pair ``GROUP_A_B.json`` and ``.html``, and on
request ``published/GROUP_A_B.json``. A pair is done when the index has it with the same files (size and time) and
the same wishes, and its results are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.model_map import MapPair, batches, read_map
from lib_toolkit.analysis.compare.pairs import compare_pairs
from lib_toolkit.analysis.compare.results import Comparison
from lib_toolkit.errors import CancelledError, TargetError, ToolkitError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.model import Model
from lib_toolkit.progress import Progress
from lib_toolkit.reports.compare_html import compare_html, page, short
from lib_toolkit.reports.compare_json import compare_json
from lib_toolkit.reports.compare_published import published, published_text
from lib_toolkit.reports.html import Html, join, table, tag
from lib_toolkit.reports.plain import printable
from lib_toolkit.target import TemporaryFile, safe_output_name

SCHEMA = 1
INDEX = "index.json"
PUBLISHED = "published"


@dataclass(frozen=True)
class Entry:
    """A pair of the index. ``stamps``: size and time of both files; ``figures`` of all weights by metric; ``error``:
    the sentence why it could not be compared, empty where it was."""

    group: str
    a: str
    b: str
    files: tuple[str, str]
    stamps: tuple[tuple[int, int], ...]
    name: str
    verdicts: tuple[str, ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Index:
    """The results of a map, in its order. ``fresh``: how many pairs this run compared."""

    folder: Path
    metrics: tuple[str, ...]
    published: str | None
    entries: tuple[Entry, ...]
    fresh: int = 0

    def as_json(self) -> dict[str, object]:
        """What ``index.json`` holds."""
        return {
            "schema": SCHEMA,
            "tool": {"name": "model-toolkit", "version": __version__},
            "metrics": list(self.metrics),
            "published": self.published,
            "pairs": [asdict(entry) for entry in self.entries],
        }

    def lines(self) -> list[str]:
        """For a terminal: one line for each pair, and where the page is."""
        told = []
        for entry in self.entries:
            said = entry.error or next(iter(entry.verdicts), "")
            told.append(printable(f"{entry.group}: {entry.a} and {entry.b}: {said}"))
        known = len(self.entries) - self.fresh
        done = f"{self.fresh:,} compared, {known:,} known from before" if known else f"{self.fresh:,} compared"
        return [*told, f"{done}; the index is {printable(str(self.folder / 'index.html'))}."]


def run_map(
    path: Path,
    folder: Path,
    metrics: Sequence[str],
    published_metric: str | None,
    progress: Progress,
    workers: int | None = None,
) -> Index:
    """Compare every pair of the map ``path``; results go to ``folder``, which is made if need be.

    Files that cannot be opened are told with the pair, and the rest continues. Raises UsageError for a map that is
    wrong, TargetError for a folder that cannot be used, and CancelledError: what was done by then stays done.
    """
    pairs = read_map(path)
    for pair in pairs:
        safe_output_name(f"{pair.stem}.html")
    known = _prepare(folder, tuple(metrics), published_metric)
    done = {pair: known[pair.stem] for pair in pairs if _is_done(folder, pair, known.get(pair.stem), published_metric)}
    run = _Run(folder, tuple(metrics), published_metric, pairs, done)
    for batch in batches([pair for pair in pairs if pair not in done]):
        run.batch(batch, progress, workers)
        run.save()
    run.save()
    return run.index()


def _prepare(folder: Path, metrics: tuple[str, ...], published_metric: str | None) -> dict[str, Entry]:
    """Make the folder; the entries of an earlier run with the same wishes. Raises TargetError for foreign folders."""
    try:
        folder.mkdir(exist_ok=True)
        strangers = any(folder.iterdir()) and not (folder / INDEX).is_file()
        if published_metric is not None:
            (folder / PUBLISHED).mkdir(exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"The folder {folder} cannot be used: {error.strerror or error}; choose another one."
        ) from None
    if strangers:
        raise TargetError(f"{folder} holds other files, but no {INDEX} of such a list; choose an empty folder.")
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        table = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if (table["schema"], tuple(table["metrics"]), table["published"]) == (SCHEMA, metrics, published_metric):
            return {str(entry["name"]): _entry(entry) for entry in table["pairs"]}
    return {}


def _entry(table: Mapping[str, object]) -> Entry:
    stamps, files, verdicts, figures = (table[name] for name in ("stamps", "files", "verdicts", "figures"))
    if not all(isinstance(one, list) for one in (stamps, files, verdicts)) or not isinstance(figures, dict):
        raise TypeError("not an entry")
    assert isinstance(stamps, list) and isinstance(files, list) and isinstance(verdicts, list)
    return Entry(
        group=str(table["group"]),
        a=str(table["a"]),
        b=str(table["b"]),
        files=(str(files[0]), str(files[1])),
        stamps=tuple((int(size), int(time)) for size, time in stamps),
        name=str(table["name"]),
        verdicts=tuple(map(str, verdicts)),
        figures=figures,
        error=str(table["error"]),
    )


def _is_done(folder: Path, pair: MapPair, entry: Entry | None, published_metric: str | None) -> bool:
    if entry is None:
        return False
    wanted = [folder / f"{pair.stem}.json", folder / f"{pair.stem}.html"]
    wanted += [folder / PUBLISHED / f"{pair.stem}.json"] if published_metric is not None else []
    return not entry.error and entry.stamps == _stamps(pair) and all(file.is_file() for file in wanted)


def _stamps(pair: MapPair) -> tuple[tuple[int, int], ...]:
    return tuple((status.st_size, status.st_mtime_ns) for status in (file.stat() for file in pair.paths))


class _Run:
    """What is known so far of the map's pairs."""

    def __init__(
        self,
        folder: Path,
        metrics: tuple[str, ...],
        published_metric: str | None,
        pairs: Sequence[MapPair],
        done: Mapping[MapPair, Entry],
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._published = published_metric
        self._pairs = pairs
        self._entries = dict(done)
        self._before = len(done)

    def batch(self, pairs: Sequence[MapPair], progress: Progress, workers: int | None) -> None:
        """Compare pairs in one pass over their files, each opened once."""
        with ExitStack() as stack:
            models, errors = _open_all(pairs, stack)
            places = {file: place for place, file in enumerate(models)}
            good = [pair for pair in pairs if all(file.resolve() in places for file in pair.paths)]
            for pair in pairs:
                if pair not in good:
                    sentences = [errors[file.resolve()] for file in pair.paths if file.resolve() in errors]
                    self._add(pair, None, sentences[0])
            if not good:
                return
            opened = list(models.values())
            wanted = [(places[pair.paths[0].resolve()], places[pair.paths[1].resolve()]) for pair in good]
            try:
                found = compare_pairs(opened, [identify(model) for model in opened], wanted, progress, workers)
            except CancelledError:
                raise
            except ToolkitError as error:
                # One file that cannot be read to its end must not take the others along.
                self._one_by_one(good, str(error), progress, workers)
                return
            for pair, comparison in zip(good, found, strict=True):
                self._add(pair, comparison)

    def _one_by_one(self, pairs: Sequence[MapPair], sentence: str, progress: Progress, workers: int | None) -> None:
        if len(pairs) == 1:
            self._add(pairs[0], None, sentence)
            return
        for pair in pairs:
            self.batch([pair], progress, workers)

    def _add(self, pair: MapPair, comparison: Comparison | None, error: str = "") -> None:
        figures: dict[str, float | None] = {}
        verdicts: tuple[str, ...] = ()
        if comparison is not None:
            total = comparison.total()
            figures = {metric: total.figure(metric) for metric in self._metrics}
            verdicts = comparison.verdicts
            text = json.dumps(compare_json(comparison, self._metrics), indent=1) + "\n"
            _put(self._folder / f"{pair.stem}.json", text)
            _put(self._folder / f"{pair.stem}.html", compare_html(comparison, self._metrics))
            if self._published is not None:
                _put(
                    self._folder / PUBLISHED / f"{pair.stem}.json",
                    published_text(published(comparison, self._published)),
                )
        files = (str(pair.paths[0]), str(pair.paths[1]))
        self._entries[pair] = Entry(pair.group, *pair.names, files, _stamps(pair), pair.stem, verdicts, figures, error)

    def index(self) -> Index:
        """All results, in the order of the map."""
        entries = tuple(self._entries[pair] for pair in self._pairs if pair in self._entries)
        return Index(self._folder, self._metrics, self._published, entries, len(entries) - self._before)

    def save(self) -> None:
        """Write the index as data and as a page."""
        index = self.index()
        _put(self._folder / INDEX, json.dumps(index.as_json(), indent=1) + "\n")
        _put(self._folder / "index.html", index_html(index))


def _open_all(pairs: Sequence[MapPair], stack: ExitStack) -> tuple[dict[Path, Model], dict[Path, str]]:
    """The models by resolved path, and why others could not be opened."""
    models: dict[Path, Model] = {}
    errors: dict[Path, str] = {}
    for file in dict.fromkeys(file.resolve() for pair in pairs for file in pair.paths):
        try:
            models[file] = stack.enter_context(open_model(file))
        except ToolkitError as error:
            errors[file] = str(error)
    return models, errors


def _put(path: Path, text: str) -> None:
    with TemporaryFile(path) as file:
        file.write_at(0, memoryview(text.encode("utf-8")))
        file.sync()
        file.commit(force=True)


def index_html(index: Index) -> str:
    """The page that leads to the pages of all pairs, group by group."""
    parts: list[Html] = []
    for group in dict.fromkeys(entry.group for entry in index.entries):
        rows = [_row(entry, index.metrics) for entry in index.entries if entry.group == group]
        head = ("Pair", "What it means", *(metric.upper() for metric in index.metrics))
        numbers = frozenset(range(2, 2 + len(index.metrics)))
        parts.append(tag("section", tag("h2", group), table(head, rows, numbers)))
    body = join(
        [
            tag("p", "Comparisons", class_="eyebrow"),
            tag("h1", f"{len(index.entries):,} pairs"),
            tag("main", *parts),
            tag(
                "footer", f"Made by Model Toolkit {__version__}. This page asks nobody for anything: it works offline."
            ),
        ]
    )
    return page(f"Comparisons in {index.folder.name}", body)


def _row(entry: Entry, metrics: Sequence[str]) -> tuple[str, ...]:
    words = f"{entry.a} and {entry.b}"
    if entry.error:
        return words, f"Not compared: {entry.error}", *("–" for _ in metrics)
    link = tag("a", words, href=f"./{quote(entry.name)}.html")
    said = tag("span", next(iter(entry.verdicts), ""), title="\n".join(entry.verdicts))
    return link, said, *(short(entry.figures.get(metric)) for metric in metrics)
