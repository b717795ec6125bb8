"""Loaded by the WebUI at its start and at each Reload UI; all code is in the package beside this folder."""

import sys

if sys.version_info < (3, 10):
    print("Model Toolkit needs Python 3.10 or newer; this WebUI runs without its tab.")
else:
    try:
        from lib_toolkit.ui import extension

        extension.start()
    except Exception as error:
        print(f"Model Toolkit cannot start ({type(error).__name__}: {error}); this WebUI runs without its tab.")
