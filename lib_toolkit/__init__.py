"""Model Toolkit: know, compare and clean Stable Diffusion model files."""

from __future__ import annotations

__version__ = "0.1.0"
