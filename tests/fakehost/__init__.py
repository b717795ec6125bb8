"""A stand-in for the WebUIs: their ``modules`` package with real signatures and habits, around a real Gradio page.

For unit tests ``FakeHost(...)`` is planted into ``sys.modules`` (``with host.planted():``); for a browser
``python -m tests.fakehost`` serves it. What it imitates was read in the hosts' sources (in ``modules``:
``script_callbacks.py``, ``scripts.py``, ``script_loading.py``, ``options.py``, ``cmd_args.py``, ``sd_models.py``,
``sd_vae.py``, ``ui.py``, and ``webui.py``, of A1111 1.10, Forge, Forge Classic and Forge Neo); nothing of them is
copied, and torch is not needed.
"""
