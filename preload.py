"""Flags for the WebUI's command line."""

import argparse

FLAG = "--toolkit-allow-remote-writes"


def preload(parser: argparse.ArgumentParser) -> None:
    """Add our flags to the WebUI's parser, once."""
    if FLAG not in parser._option_string_actions:
        parser.add_argument(
            FLAG, action="store_true", help="let visitors from other computers save models with the Toolkit tab"
        )
