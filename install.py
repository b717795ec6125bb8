"""Run by the WebUI before it starts: adds what the toolkit needs and this WebUI lacks, and changes nothing else.

Every current WebUI has all of it; then nothing is done and nothing is said.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

NEEDED = {"numpy": "numpy>=1.26", "safetensors": "safetensors>=0.4.2"}
"""What pip is asked for, by the name of the package that is imported. Neither brings others along."""


def missing() -> list[str]:
    """The requirements whose package is not installed, in whatever version."""
    return [requirement for name, requirement in NEEDED.items() if importlib.util.find_spec(name) is None]


def install(requirement: str) -> None:
    """By the WebUI's own pip where there is one, since it knows the index and the flags that the user has set."""
    try:
        import launch

        run_pip = launch.run_pip
    except (Exception, SystemExit):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", requirement], check=True)
    else:
        run_pip(f'install "{requirement}"', f"{requirement} for Model Toolkit")


def main() -> None:
    """Say what is installed, or why it could not be; the WebUI starts in either case."""
    for requirement in missing():
        print(f"Model Toolkit: installing {requirement}, which this WebUI lacks; nothing else is changed.")
        try:
            install(requirement)
        except Exception as error:
            print(f"Model Toolkit: {requirement} could not be installed ({error}); install it with pip.")


if __name__ == "__main__":
    main()
