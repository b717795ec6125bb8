"""The command line and the paths that follow from it (``cmd_args.py``, ``paths_internal.py``, ``preload.py`` files)."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.fakehost.flavours import Flavour


def normalized_filepath(filepath):
    return str(Path(filepath).absolute())


def parser_of(flavour: Flavour, data_dir: Path) -> argparse.ArgumentParser:
    """The host's parser before extensions add to it. Defaults follow the data folder."""
    models = data_dir / "models"
    parser = argparse.ArgumentParser(prog="webui.py", conflict_handler="error")
    parser.add_argument("--data-dir", type=normalized_filepath, default=str(data_dir))
    parser.add_argument(flavour.models_flag, type=normalized_filepath, default=None)
    _add_folders(parser, flavour, data_dir, models)
    for switch in ("share", "listen", "freeze-settings", "hide-ui-dir-config", "no-gradio-queue", "api", "nowebui"):
        parser.add_argument(f"--{switch}", action="store_true")
    for switch in (
        "disable-all-extensions",
        "disable-extra-extensions",
        "skip-install",
        "enable-insecure-extension-access",
    ):
        parser.add_argument(f"--{switch}", action="store_true")
    for text in ("server-name", "ngrok", "freeze-settings-in-sections", "freeze-specific-settings", "subpath", "theme"):
        parser.add_argument(f"--{text}", type=str, default=None)
    parser.add_argument("--ngrok-options", type=json.loads, default={})
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--gradio-allowed-path", action="append", default=[str(data_dir)])
    parser.add_argument("--ui-settings-file", type=str, default=str(data_dir / "config.json"))
    return parser


def _add_folders(parser: argparse.ArgumentParser, flavour: Flavour, data_dir: Path, models: Path) -> None:
    if flavour.lists:
        for flag in ("ckpt-dirs", "vae-dirs", "lora-dirs", "text-encoder-dirs"):
            parser.add_argument(f"--{flag}", type=normalized_filepath, action="append", default=[])
    else:
        for flag in ("ckpt-dir", "vae-dir"):
            parser.add_argument(f"--{flag}", type=normalized_filepath, default=None)
        if flavour.text_encoders:
            parser.add_argument("--text-encoder-dir", type=normalized_filepath, default=None)
    if flavour.path_stays:
        parser.add_argument("--controlnet-dir", type=Path, default=None)
    embeddings = models / "embeddings" if flavour.models_flag == "--model-ref" else data_dir / "embeddings"
    parser.add_argument("--embeddings-dir", type=normalized_filepath, default=str(embeddings))
    parser.add_argument("--esrgan-models-path", type=normalized_filepath, default=str(models / "ESRGAN"))
    if flavour.name in {"a1111", "forge"}:
        parser.add_argument("--hypernetwork-dir", type=normalized_filepath, default=str(models / "hypernetworks"))
    # The built-in Lora extension adds this one by its preload.py, before parsing as all others do.
    parser.add_argument("--lora-dir", type=normalized_filepath, default=None)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str], models_path: str) -> argparse.Namespace:
    """The flags as ``shared_cmd_options`` completes them."""
    options = parser.parse_args(list(argv))
    if options.lora_dir is None:
        options.lora_dir = os.path.join(models_path, "Lora")
    options.webui_is_non_local = any([options.share, options.listen, options.ngrok, options.server_name])
    options.disable_extension_access = options.webui_is_non_local and not options.enable_insecure_extension_access
    return options


def early_paths(flavour: Flavour, data_dir: Path, argv: Sequence[str]) -> tuple[str, str]:
    """The data folder and the models folder, read before all other flags."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--data-dir", type=str, default=str(data_dir))
    early.add_argument(flavour.models_flag, dest="models", type=str, default=None)
    known = early.parse_known_args(list(argv))[0]
    return known.data_dir, known.models or os.path.join(known.data_dir, "models")
