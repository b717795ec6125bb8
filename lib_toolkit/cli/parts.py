"""Verbs for components: export takes one out, import puts one in, new builds a model of several."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.cli.output import add_output_options, add_precision, carry_out, target_of
from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.cli.verbs import Verbs
    from lib_toolkit.edits.components import Candidate
    from lib_toolkit.identify import Identification
    from lib_toolkit.model import Model
    from lib_toolkit.plan import Plan
    from lib_toolkit.writing import WriteOptions

_CLASS_HELP = "a class (UNET-v1, VAE-v1, CLIP-v1 …), a component's name, or an id"
_FORMATS = ("safetensors", "ckpt", "pt")


def add_verbs(verbs: Verbs) -> None:
    """Declare ``export``, ``import`` and ``new``."""
    _add_export(verbs)
    _add_import(verbs)
    _add_new(verbs)


def _add_export(verbs: Verbs) -> None:
    export = verbs.add_parser(
        "export",
        help="write one component of a model to a file of its own",
        description="Write one complete component of any model, also of a broken one, to a file of its own.",
    )
    export.add_argument("file", type=named_path, metavar="MODEL")
    export.add_argument("cls", metavar="CLASS", help=_CLASS_HELP)
    export.add_argument("--component", metavar="NAME", help="which of several, such as UNET-v1-EMA; default: auto")
    export.add_argument("-o", "--output", metavar="OUT", help="default: beside MODEL, such as NAME.vae.safetensors")
    add_precision(export, "auto", "auto (default): FP32 and FP64 become FP16, 16-bit types stay; keep: nothing is cast")
    add_output_options(export, _FORMATS)
    export.set_defaults(run=_export)


def _add_import(verbs: Verbs) -> None:
    bring = verbs.add_parser(
        "import",
        help="replace one component of a model",
        description="Write a copy of MODEL with one component taken from another file; no other byte changes.",
    )
    bring.add_argument("file", type=named_path, metavar="MODEL")
    bring.add_argument("cls", metavar="CLASS", help=_CLASS_HELP)
    bring.add_argument("source", type=named_path, metavar="SOURCE", help="a component's file, or a whole model")
    bring.add_argument("--component", metavar="NAME", help="which of SOURCE's, such as UNET-v1-EMA; default: auto")
    bring.add_argument("-o", "--output", metavar="OUT", required=True)
    add_precision(
        bring, "auto", "of the imported component; auto (default): that of the one it replaces; keep: that of SOURCE"
    )
    _add_incomplete(bring)
    add_output_options(bring, _FORMATS)
    bring.set_defaults(run=_import)


def _add_new(verbs: Verbs) -> None:
    new = verbs.add_parser(
        "new",
        help="build a model of components",
        description="Write a new model of an architecture (SD-v1, SD-v2, SDXL …), its components taken from files.",
    )
    new.add_argument("architecture", metavar="ARCH", help="an architecture's name or id")
    new.add_argument(
        "parts", nargs="+", metavar="CLASS=FILE", help="what to take from where; FILE may be a whole model"
    )
    new.add_argument("-o", "--output", metavar="OUT", required=True)
    add_precision(new, "fp16", "of the components; default: fp16; keep: that of their files")
    _add_incomplete(new)
    add_output_options(new, _FORMATS)
    new.set_defaults(run=_new)


def _add_incomplete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-incomplete", action="store_true", help="write a model that lacks components, too")


def _export(options: argparse.Namespace) -> int:
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.edits.components import choose, export_component, suffix_of
    from lib_toolkit.edits.precision import set_precision
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify

    with open_model(options.file) as model, progress_line() as progress:
        found = identify(model)
        chosen = choose(model, found, options.cls, options.component)
        plan = export_component(model, found, options.cls, options.component)
        part = identify(plan.as_model())
        plan = set_precision(plan, part, options.precision)
        target, how = _how(
            options, options.file.parent, options.file.stem + suffix_of(chosen.match.component, chosen.match.layout)
        )
        answer = carry_out(plan, part, target, how, options, progress, {"component": _component_json(chosen)})
    _print(options, [chosen], answer)
    return 0


def _import(options: argparse.Namespace) -> int:
    return _fill(options, options.file, [(options.cls, options.source)], options.component)


def _new(options: argparse.Namespace) -> int:
    from lib_toolkit.edits.components import new_plan

    plan = new_plan(options.architecture)
    return _fill(options, plan, [_class_and_file(text) for text in options.parts])


def _class_and_file(text: str) -> tuple[str, Path]:
    cls, equals, file = text.partition("=")
    if not (cls and equals and file):
        raise UsageError(f"{text!r} does not say what to take from where; write it as VAE-v1=FILE.")
    return cls, Path(file)


def _fill(
    options: argparse.Namespace, begun: Path | Plan, wanted: list[tuple[str, Path]], component: str | None = None
) -> int:
    """One import after another into the model or plan that was begun with, written once."""
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.edits.components import import_component
    from lib_toolkit.identify import identify
    from lib_toolkit.plan import plan_of

    with ExitStack() as stack, progress_line() as progress:
        opened = _Opened(stack)
        plan = plan_of(opened.model(begun)) if isinstance(begun, Path) else begun
        found = identify(plan.as_model())
        chosen: list[Candidate] = []
        for cls, file in wanted:
            source = opened.model(file)
            source_found = identify(source)
            plan, one = import_component(plan, found, cls, source, source_found, component, options.precision)
            found = identify(plan.as_model())
            chosen.append(one)
        target, how = _how(options, Path(), "")
        _check_complete(plan, found, target, options.allow_incomplete)
        names = [_component_json(one) for one in chosen]
        more = {"component": names[0]} if len(names) == 1 else {}
        answer = carry_out(plan, found, target, how, options, progress, {**more, "components": names})
    _print(options, chosen, answer)
    return 0


class _Opened:
    """Models by file, each opened once, also where it is named twice."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._models: dict[Path, Model] = {}

    def model(self, path: Path) -> Model:
        from lib_toolkit.formats import open_model

        known = self._models.get(path.absolute())
        if known is None:
            known = self._models[path.absolute()] = self._stack.enter_context(open_model(path))
        return known


def _how(options: argparse.Namespace, folder: Path, stem: str) -> tuple[Path, WriteOptions]:
    from lib_toolkit.writing import WriteOptions

    target, file_format = target_of(options, folder, stem)
    return target, WriteOptions(file_format, options.force, options.strict)


def _check_complete(plan: Plan, found: Identification, target: Path, allowed: bool) -> None:
    from lib_toolkit.edits.components import missing_classes

    missing = missing_classes(plan, found)
    if (found.intact and not missing) or allowed:
        return
    lacks = f"it lacks {', '.join(missing)}" if missing else f"it is {found.name}, which is not intact"
    raise UsageError(
        f"{target.name} would not be a whole model: {lacks}; import what is missing, "
        "or allow it with --allow-incomplete."
    )


def _component_json(chosen: Candidate) -> dict[str, object]:
    match = chosen.match
    return {
        "class": chosen.component.cls,
        "name": match.component.name,
        "id": match.component.id,
        "source": str(chosen.source.origin.path),
        "source_prefix": match.prefix,
        "source_layout": match.layout,
        "layout": chosen.layout,
        "why": chosen.why,
    }


def _print(options: argparse.Namespace, chosen: list[Candidate], answer: str) -> None:
    from lib_toolkit.reports.plain import printable

    if not options.json:
        for one in chosen:
            print(printable(one.sentence()))
    print(answer)
