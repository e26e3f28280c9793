"""HOW a skipped value is filled in: predictors over a history of computed deltas."""

from keystep.how.damped import Damped
from keystep.how.frequency import FrequencyBands, Gain
from keystep.how.history import Entry, Moment, Predictor
from keystep.how.hold import Hold
from keystep.how.linear import Constant, Linear, Measured, Ramp, Spacing
from keystep.how.taylor import Taylor

__all__ = [
    "Constant",
    "Damped",
    "Entry",
    "FrequencyBands",
    "Gain",
    "Hold",
    "Linear",
    "Measured",
    "Moment",
    "Predictor",
    "Ramp",
    "Spacing",
    "Taylor",
]
