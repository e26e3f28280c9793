"""WHAT is skipped: sites, probe points and the layout of guidance branches."""

from keystep.what.branch import LEAD, Guidance
from keystep.what.site import Attention, AttentionResidual, Branch, PrefixResidual, Probe, Site, Span

__all__ = [
    "LEAD",
    "Attention",
    "AttentionResidual",
    "Branch",
    "Guidance",
    "PrefixResidual",
    "Probe",
    "Site",
    "Span",
]
