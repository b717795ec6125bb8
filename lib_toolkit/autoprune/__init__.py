"""The drop folder: whatever is put there is cleaned, checked and filed away, on plain folders and a policy.

``run_once`` and ``watch`` do the work, ``waiting`` tells what lies there, ``last_run`` what was done. How a file is
brought to its place so that no crash can lose it is written down in ``processing``.
"""

from __future__ import annotations

from lib_toolkit.autoprune.policy import Policy, policy_of
from lib_toolkit.autoprune.run import last_run, run_once, waiting, watch
from lib_toolkit.autoprune.steps import Run, Step
from lib_toolkit.autoprune.telling import sentence

__all__ = ["Policy", "Run", "Step", "last_run", "policy_of", "run_once", "sentence", "waiting", "watch"]
