"""Settings every test shares: one thread (the models are tiny), repeatable hypothesis runs, imports."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hypothesis import settings

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

settings.register_profile("keystep", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("keystep")

# Before anything is built, fixtures of any scope included: on models this small a second thread only waits.
torch.set_num_threads(1)
