"""The files that a WebUI runs itself: install.py, preload.py, scripts/model_toolkit.py, metadata.ini."""

from __future__ import annotations

import argparse
import ast
import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost.flavours import FLAVOURS
from tests.fakehost.host import FakeHost
from tests.fakehost.scripts import load_module

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "model_toolkit.py"

HIDE_NUMPY = """
import importlib.util as util
known = util.find_spec
util.find_spec = lambda name, *more: None if name == "numpy" else known(name, *more)
"""
RECORDING_LAUNCH = """
import json, sys
def run_pip(command, desc=None, live=False):
    print(json.dumps([command, desc]), file=sys.stderr)
"""
RECORDING_PIP = "import json, sys; print(json.dumps(sys.argv[1:]), file=sys.stderr)"


def run_install(host_root, **files):
    """install.py as the hosts run it: a process of its own, in the host's folder, which is on the path too."""
    host_root.mkdir(exist_ok=True)
    for name, text in files.items():
        path = host_root / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    env = {**os.environ, "PYTHONPATH": str(host_root)}
    command = [sys.executable, str(ROOT / "install.py")]
    return subprocess.run(command, cwd=host_root, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_install_does_nothing_and_says_nothing_where_all_is_there(tmp_path):
    done = run_install(tmp_path / "host", launch="raise SystemExit('launch was imported for nothing')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_install_adds_only_what_is_missing_by_the_pip_of_the_host(tmp_path):
    done = run_install(tmp_path / "host", launch=RECORDING_LAUNCH, sitecustomize=HIDE_NUMPY)
    assert done.returncode == 0
    command, about = json.loads(done.stderr)
    assert command == 'install "numpy>=1.26"', "no --upgrade, nothing else"
    assert "Model Toolkit" in about
    assert done.stdout.startswith("Model Toolkit: installing numpy>=1.26")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("launch", ["raise ImportError('none')", "raise SystemExit(2)", "pass"], ids=str)
def test_install_uses_pip_where_the_host_has_no_launch(tmp_path, launch):
    files = {"pip____main__": RECORDING_PIP, "pip____init__": ""}
    done = run_install(tmp_path / "host", launch=launch, sitecustomize=HIDE_NUMPY, **files)
    assert done.returncode == 0
    assert json.loads(done.stderr) == ["install", "-q", "numpy>=1.26"]


def test_an_install_that_fails_is_one_more_line(tmp_path):
    files = {"pip____main__": "raise SystemExit(1)", "pip____init__": ""}
    done = run_install(tmp_path / "host", sitecustomize=HIDE_NUMPY, **files)
    assert (done.returncode, done.stderr) == (0, "")
    assert "could not be installed" in done.stdout.splitlines()[1]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_preload_adds_the_flag_that_reaches_the_host(flavour, tmp_path):
    assert FakeHost(flavour, tmp_path).cmd_opts.__dict__.get("toolkit_allow_remote_writes") is None
    assert FakeHost(flavour, tmp_path, roots=[ROOT]).cmd_opts.toolkit_allow_remote_writes is False
    flagged = FakeHost(flavour, tmp_path, ["--toolkit-allow-remote-writes"], roots=[ROOT])
    assert flagged.cmd_opts.toolkit_allow_remote_writes is True


def test_preload_can_run_twice():
    parser = argparse.ArgumentParser()
    for _ in range(2):
        load_module(str(ROOT / "preload.py")).preload(parser)
    assert parser.parse_args([]).toolkit_allow_remote_writes is False


def test_metadata_names_the_extension():
    config = configparser.ConfigParser()
    config.read(ROOT / "metadata.ini")
    assert config.sections() == ["Extension"]
    assert config["Extension"]["Name"] == "model-toolkit"


def test_the_script_is_small_and_makes_no_package():
    """A dataclass with postponed annotations fails in a file that is not in sys.modules; ``scripts`` is shared."""
    text = SCRIPT.read_text("utf-8")
    assert len(text.splitlines()) < 30
    assert not (ROOT / "scripts" / "__init__.py").exists()
    for path in (SCRIPT, ROOT / "install.py", ROOT / "preload.py"):
        tree = ast.parse(path.read_text("utf-8"))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in imported} & {
            "dataclasses",
            "modules",
            "gradio",
            "pydantic",
            "scripts",
        }
        compile(tree, str(path), "exec")


def test_an_old_python_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    load_module(str(SCRIPT))
    assert capsys.readouterr().out == "Model Toolkit needs Python 3.10 or newer; this WebUI runs without its tab.\n"
    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 7))


LOADING = """
import sys
from pathlib import Path
from tests.fakehost.host import FakeHost
from tests.fakehost.scripts import hide_extension
hide_extension()
host = FakeHost({flavour!r}, Path({data!r}), roots=[Path({root!r})])
with host.planted():
    host.start()
{then}
"""


def loading(flavour, data, root, then):
    """Load the extension in a process of its own that cannot import the package by itself, then run ``then``."""
    code = LOADING.format(flavour=flavour, data=str(data), root=str(root), then=then)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_a_failing_import_is_one_line_and_the_host_goes_on(tmp_path):
    broken = tmp_path / "broken-extension"
    shutil.copytree(ROOT / "scripts", broken / "scripts")
    (broken / "lib_toolkit").mkdir()
    (broken / "lib_toolkit" / "__init__.py").write_text("raise ImportError('No module named numpy')")
    done = loading("a1111", tmp_path / "data", broken, "    print(host.script_callbacks.ui_tabs_callback())")
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("Model Toolkit cannot start (ImportError: No module named numpy)")
    assert second == "[]"


def test_without_a_webui_the_script_says_so(capsys):
    pytest.importorskip("gradio")
    load_module(str(SCRIPT))
    assert "Model Toolkit cannot start (UsageError: This is not a running WebUI" in capsys.readouterr().out


def test_a_disabled_extension_is_not_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"disabled_extensions": [ROOT.name]}))
    then = "    print(host.script_callbacks.ui_tabs_callback(), 'lib_toolkit' in sys.modules)"
    assert loading("a1111", tmp_path, ROOT, then).stdout == "[] False\n"


WHOLE_STORY = """
    import gradio, json, pkgutil
    def state():
        from lib_toolkit.ui import extension
        host.script_callbacks.ui_settings_callback()
        (block, title, name), = host.script_callbacks.ui_tabs_callback()
        callbacks = [len(known) for known in host.script_callbacks.callback_map.values()]
        options = [key for key in host.shared.opts.data_labels]
        return [type(block).__name__, title, name, callbacks, len(options), id(extension), id(extension.JOBS)]
    told = {"path": %r in sys.path, "script": "model_toolkit" in sys.modules or "model_toolkit.py" in sys.modules}
    states = [state()]
    for _ in range(2):
        host.reload()
        states.append(state())
    told["states"] = states
    # What is imported only when needed is found too, although the root may be off the path by now.
    from lib_toolkit import edits, formats
    for package in (edits, formats):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            __import__(found.name)
    told["torch"] = "torch" in sys.modules
    told["option"] = host.shared.opts.model_toolkit_precision
    print(json.dumps(told))
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_tab_comes_up_and_survives_two_reloads_of_the_page(flavour, tmp_path):
    pytest.importorskip("gradio")
    done = loading(flavour, tmp_path / "data", ROOT, WHOLE_STORY % str(ROOT))
    assert "Traceback" not in done.stderr
    assert "***" not in done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["path"] == FLAVOURS[flavour].path_stays
    assert told["script"] is False
    assert told["torch"] is False
    assert told["option"] == "auto"
    first, second, third = told["states"]
    assert first == second == third, "registered once each time; the package and its jobs go on"
    assert first[:3] == ["Blocks", "Toolkit", "model_toolkit"]
    assert first[3] == [1, 0, 0, 1, 1, 1, 0], "one callback each: started, tabs, settings, unloaded"


def test_events_that_forge_wraps_keep_our_options():
    """A wrapper that takes anything hides what the event takes; without ``queue=False`` all would go by the queue."""
    pytest.importorskip("gradio")
    from lib_toolkit.ui import compat
    from tests.fakehost.forge_gradio import EventWrapper

    def click(fn, inputs, outputs, queue=True, show_progress="full"):
        raise AssertionError("only looked at")

    wished = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    assert compat.accepted(EventWrapper(click), **wished) == {"queue": False, "show_progress": "hidden"}
