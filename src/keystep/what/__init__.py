"""WHAT is skipped: sites, probe points and the layout of guidance branches."""

from keystep.what.branch import LEAD, Guidance
from keystep.what.site import (
    Attention,
    AttentionResidual,
    BlockProbe,
    Branch,
    Mlp,
    Part,
    PrefixResidual,
    Probe,
    RestResidual,
    Site,
    Span,
)

__all__ = [
    "LEAD",
    "Attention",
    "AttentionResidual",
    "BlockProbe",
    "Branch",
    "Guidance",
    "Mlp",
    "Part",
    "PrefixResidual",
    "Probe",
    "RestResidual",
    "Site",
    "Span",
]
