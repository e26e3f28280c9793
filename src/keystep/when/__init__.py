"""WHEN to recompute: signals that are measured and controllers that decide."""

from keystep.when.accumulate import Accumulate, Accumulated
from keystep.when.adaptive import Codebook, CodebookState, MotionRegularisation
from keystep.when.below import Below, BelowState
from keystep.when.control import ControlState, ErrorControl, Paced
from keystep.when.controller import Controller, Plan
from keystep.when.rate import PredictedChange, RateState
from keystep.when.schedule import Always, Every, Mask
from keystep.when.signal import (
    LatentShare,
    MeanChange,
    MeanSize,
    MotionRatio,
    Progress,
    RelativeChange,
    Signal,
)
from keystep.when.timed import After, Window

__all__ = [
    "Accumulate",
    "Accumulated",
    "After",
    "Always",
    "Below",
    "BelowState",
    "Codebook",
    "CodebookState",
    "ControlState",
    "Controller",
    "ErrorControl",
    "Every",
    "LatentShare",
    "Mask",
    "MeanChange",
    "MeanSize",
    "MotionRatio",
    "MotionRegularisation",
    "Paced",
    "Plan",
    "PredictedChange",
    "Progress",
    "RateState",
    "RelativeChange",
    "Signal",
    "Window",
]
