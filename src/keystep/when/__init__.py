"""WHEN to recompute: signals that are measured and controllers that decide."""

from keystep.when.adaptive import Below, Codebook, CodebookState, MotionRegularisation
from keystep.when.controller import Controller, Plan
from keystep.when.schedule import Always, Every, Mask
from keystep.when.signal import MotionRatio, RelativeChange, Signal

__all__ = [
    "Always",
    "Below",
    "Codebook",
    "CodebookState",
    "Controller",
    "Every",
    "Mask",
    "MotionRatio",
    "MotionRegularisation",
    "Plan",
    "RelativeChange",
    "Signal",
]
