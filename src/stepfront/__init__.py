"""Find which width of a slimmable diffusion network to run at which denoising step."""

from __future__ import annotations

from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds this package: `src` of a checkout, or site-packages.  Ray workers find it in PYTHONPATH."""
