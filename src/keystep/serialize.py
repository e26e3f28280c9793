"""Policies as plain data, for files and reports: every part becomes `{"type": class name, field: value,
...}`.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from keystep.errors import unknown
from keystep.how import Constant, Damped, FrequencyBands, Gain, Hold, Linear, Measured, Ramp, Spacing, Taylor
from keystep.policy import Policy, Rule
from keystep.what import (
    Attention,
    AttentionInput,
    AttentionResidual,
    Branch,
    Correction,
    FilteredLatent,
    Forecast,
    Guided,
    Latent,
    Mlp,
    Output,
    Prediction,
    PrefixResidual,
    RestResidual,
    Span,
    SpanInput,
    StackInput,
    TimeEmbedding,
)
from keystep.when import (
    Accumulate,
    After,
    Always,
    Below,
    Codebook,
    ErrorControl,
    Every,
    LatentShare,
    Mask,
    MeanChange,
    MeanSize,
    MotionRatio,
    MotionRegularisation,
    Paced,
    PredictedChange,
    Progress,
    RelativeChange,
    Window,
)

PARTS = {
    part.__name__: part
    for part in (
        *(Policy, Rule),
        *(Attention, Mlp, Branch, Output, Guided, Span, AttentionResidual, RestResidual, PrefixResidual),
        *(SpanInput, StackInput, AttentionInput, TimeEmbedding, FilteredLatent),
        *(Latent, Prediction, Forecast, Correction),
        *(Always, Every, Mask, Window, After),
        *(Codebook, Below, Accumulate, PredictedChange, Paced, ErrorControl),
        *(MotionRegularisation, RelativeChange, MotionRatio, MeanChange, MeanSize, Progress, LatentShare),
        *(Hold, Damped, Linear, Constant, Ramp, Spacing, Measured, Taylor, FrequencyBands, Gain),
    )
}


def to_data(part: Any) -> Any:
    """A policy, or any part of one, as dicts, lists, strings and numbers (infinity as "inf")."""
    if is_dataclass(part) and not isinstance(part, type):
        values = {field.name: to_data(getattr(part, field.name)) for field in fields(part)}
        return {"type": type(part).__name__, **values}
    if isinstance(part, (tuple, list)):
        return [to_data(item) for item in part]
    return "inf" if isinstance(part, float) and math.isinf(part) else part


def from_data(data: Any) -> Any:
    """The part that `to_data` made.

    Raises:
        ValueError: unknown part or field, or a value that is not allowed.
    """
    if isinstance(data, list):
        return tuple(from_data(item) for item in data)
    if not isinstance(data, dict):
        return math.inf if data == "inf" else data
    name = str(data.get("type"))
    if name not in PARTS:
        raise unknown("policy part", name, PARTS)
    known = {field.name for field in fields(PARTS[name]) if field.init}
    values = {key: from_data(value) for key, value in data.items() if key != "type"}
    for key in values:
        if key not in known:
            raise unknown(f"field of {name}", key, known)
    try:
        return PARTS[name](**values)
    except (TypeError, AttributeError) as error:  # a field is missing, or is no part of a policy
        raise ValueError(f"policy part {name}: {error}") from None
