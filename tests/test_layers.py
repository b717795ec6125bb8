"""Imports only go down; host and screen stay in their layers; names that run code do not occur."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lib_toolkit"

KNOWING = {"architectures", "identify"}
WRITING = {
    "formats",
    "plan",
    "streaming",
    "sweep",
    "checksums",
    "verifying",
    "hashing",
    "ways_out",
    "renaming",
    "temporary",
    "target",
    "flushing",
    "writing",
}

# From the ground up. A module may import its own layer and those below; the two wings do not see each other.
LAYERS = [
    {"errors", "progress", "counting"},
    {"dtypes", "files", "crc", "tensors", "nodes", "casting", "model"},
    KNOWING,
    {"layouts"},
    WRITING,
    {"edits"},
    {"analysis"},
    {"reports"},
    {"jobs", "demo", "autoprune"},
    {"hosts"},
    {"ui"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
WINGS = (
    KNOWING,
    WRITING,
)

MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(module: str) -> str:
    """lib_toolkit.formats.safetensors → formats; the package itself counts as the ground."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "errors"


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def own_unit(path: Path) -> str:
    relative = path.relative_to(PACKAGE).with_suffix("")
    return "errors" if relative.name == "__init__" and len(relative.parts) == 1 else relative.parts[0]


def test_every_module_has_a_layer():
    assert {own_unit(path) for path in MODULES} <= RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = own_unit(path)
    for module in imports(path):
        if not module.startswith("lib_toolkit"):
            continue
        other = unit(module)
        if other not in RANK:  # a name of the package itself, such as __version__
            continue
        assert RANK[other] <= RANK[own], f"{own} imports {other} above it"
        for wing, opposite in (WINGS, WINGS[::-1]):
            assert not (own in wing and other in opposite), f"{own} imports {other} of the other wing"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_host_and_screen_stay_in_their_layers(path):
    roots = {module.split(".")[0] for module in imports(path)}
    relative = path.relative_to(PACKAGE)
    if relative.parts[0] not in {"ui", "cli"}:
        assert "gradio" not in roots
    if relative != Path("hosts/webui.py"):
        assert "modules" not in roots
    assert "torch" not in {module.split(".")[0] for module in imports(path, top_level_only=True)}
    if relative.parts[0] in {"architectures", "identify.py"}:
        assert "numpy" not in roots


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_can_execute(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if not re.fullmatch(r"[\w.]+", name):
                continue
            assert name not in {"eval", "exec", "compile", "__import__"}, name
            assert not re.search(r"(^|\.)(pickle|cPickle|marshal|shelve)\.|torch\.load|import_module|Unpickler", name)
    forbidden = {"pickle", "marshal", "shelve", "importlib", "subprocess"}
    if path == PACKAGE / "autoprune" / "starter.py":
        forbidden.remove("subprocess")  # it runs one fixed command of ours
    assert not forbidden & {m.split(".")[0] for m in imports(path)}
    assert not {"socket.socket", "urllib", "requests", "http"} & set(imports(path))
