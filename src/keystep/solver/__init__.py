"""What a scheduler does with a model's output: noise levels, data predictions, the response of its steps."""

from keystep.solver.noise import Level, levels_of, shares_of
from keystep.solver.snapshot import restore, take_snapshot, tensors_of
from keystep.solver.step import Response, StepCall, find_response, is_repeatable, scheduler_of

__all__ = [
    "Level",
    "Response",
    "StepCall",
    "find_response",
    "is_repeatable",
    "levels_of",
    "restore",
    "shares_of",
    "scheduler_of",
    "take_snapshot",
    "tensors_of",
]
