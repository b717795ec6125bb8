"""``modules.scripts``, ``script_loading`` and ``extensions``: which there are and how their files are run."""

from __future__ import annotations

import configparser
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fakehost.flavours import Flavour


@dataclass
class Extension:
    name: str
    path: str
    enabled: bool = True

    @property
    def canonical_name(self) -> str:
        config = configparser.ConfigParser()
        config.read(Path(self.path) / "metadata.ini")
        return config.get("Extension", "Name", fallback=self.name).lower().strip()

    def files(self, folder: str, ending: str) -> list[str]:
        """Files directly in a sub-folder, sorted."""
        try:
            names = sorted(os.listdir(Path(self.path) / folder))
        except OSError:
            return []
        return [str(Path(self.path) / folder / name) for name in names if name.endswith(ending)]


def load_module(path):
    """Run a file under its own name; it does not come into ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hide_extension() -> None:
    """Take our package off ``sys.path``: a host finds it only by what it does to that list itself.

    An editable installation leaves a folder of that name, with nothing but assets in it, beside everybody's packages.
    """
    sys.path[:] = [entry for entry in sys.path if not (Path(entry or ".") / "lib_toolkit" / "__init__.py").is_file()]


def report(what: str) -> None:
    print(f"*** {what}", file=sys.stderr)
    traceback.print_exc()


def preload_extensions(roots: Sequence[Path], parser: Any) -> None:
    for root in sorted(roots):
        if (root / "preload.py").is_file():
            try:
                module = load_module(str(root / "preload.py"))
                if hasattr(module, "preload"):
                    module.preload(parser)
            except Exception:
                report(f"Error running preload() for {root / 'preload.py'}")


def make_extensions(roots: Sequence[Path], extensions_dir: str, shared: Any) -> ModuleType:
    module: Any = ModuleType("modules.extensions")
    module.extensions = []

    def list_extensions():
        disabled = set(getattr(shared.opts, "disabled_extensions", []))
        module.extensions.clear()
        seen: set[str] = set()
        for root in (*roots, *sorted(Path(extensions_dir).glob("*/"))):
            extension = Extension(root.name, str(root), root.name not in disabled)
            if extension.canonical_name in seen:
                print(f"*** Duplicate canonical name {extension.canonical_name!r}; discarded {root}", file=sys.stderr)
                continue
            seen.add(extension.canonical_name)
            module.extensions.append(extension)

    def active():
        if shared.cmd_opts.disable_all_extensions or shared.cmd_opts.disable_extra_extensions:
            return []
        return [extension for extension in module.extensions if extension.enabled]

    module.list_extensions, module.active = list_extensions, active
    return module


def make_scripts(flavour: Flavour, script_path: str, extensions: Any, callbacks: Any) -> ModuleType:
    module: Any = ModuleType("modules.scripts")
    now = [script_path]

    def basedir():
        return now[0]

    def list_scripts(scriptdirname, extension, *, include_extensions=True):
        return [(one.path, file) for one in extensions.active() for file in one.files(scriptdirname, extension)]

    def list_files_with_name(filename):
        found = [os.path.join(one.path, filename) for one in extensions.active()]
        return [path for path in found if os.path.isfile(path)]

    def load_scripts():
        callbacks.clear_callbacks()
        scripts = list_scripts("scripts", ".py")
        if flavour.path_stays:
            for root, _ in scripts:
                if root not in sys.path:
                    sys.path = [root, *sys.path]
        before = sys.path
        for root, file in scripts:
            sys.path = [root, *before]
            now[0] = root
            try:
                load_module(file)
            except Exception:
                report(f"Error loading script: {os.path.basename(file)}")
            finally:
                sys.path = before
                now[0] = script_path

    for function in (basedir, list_scripts, list_files_with_name, load_scripts):
        setattr(module, function.__name__, function)
    return module


def make_script_loading() -> ModuleType:
    module: Any = ModuleType("modules.script_loading")
    module.load_module = load_module
    return module
