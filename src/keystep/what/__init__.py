"""WHAT is skipped: sites, probe points and the layout of guidance branches."""

from keystep.what.branch import LEAD, Guidance
from keystep.what.site import (
    Attention,
    AttentionInput,
    AttentionResidual,
    BeforeSpan,
    BlockProbe,
    Branch,
    Latent,
    Mlp,
    Output,
    Part,
    Prediction,
    PrefixResidual,
    Probe,
    RestResidual,
    Site,
    Span,
    TimeEmbedding,
)

__all__ = [
    "LEAD",
    "Attention",
    "AttentionInput",
    "AttentionResidual",
    "BeforeSpan",
    "BlockProbe",
    "Branch",
    "Guidance",
    "Latent",
    "Mlp",
    "Output",
    "Part",
    "Prediction",
    "PrefixResidual",
    "Probe",
    "RestResidual",
    "Site",
    "Span",
    "TimeEmbedding",
]
