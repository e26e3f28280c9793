"""A policy is a tuple of rules: WHAT is skipped, WHEN it is recomputed and HOW it is filled in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import inf

from keystep.errors import require
from keystep.how import Predictor
from keystep.what import (
    Attention,
    AttentionInput,
    BlockProbe,
    Correction,
    FilteredLatent,
    Forecast,
    Guided,
    Latent,
    Mlp,
    Output,
    Part,
    Prediction,
    PrefixResidual,
    Probe,
    Site,
    Span,
    SpanInput,
    StackInput,
    TimeEmbedding,
)
from keystep.when import Controller, Signal


@dataclass(frozen=True)
class Rule:
    """One thing that is skipped.

    Attributes:
        what: the site.
        when: the controller that decides per evaluation.
        how: the predictor that fills in skipped values.
        max_age: a skip needs, for every active branch, an entry computed at most this many evaluations ago;
            else the evaluation is computed and the trace says so. None = any age.
        max_lag: likewise, an entry computed at most this many evaluations before the leading branch's (0 =
            at the same one); branches that CFG-Cache leaves out fall behind. None = any lag.
    """

    what: Site
    when: Controller
    how: Predictor
    max_age: int | None = None
    max_lag: int | None = None

    def __post_init__(self) -> None:
        require(
            self.max_age is None or self.max_age >= 1,
            "Rule.max_age",
            self.max_age,
            "None or evaluations >= 1",
        )
        is_valid = self.max_lag is None or self.max_lag >= 0
        require(is_valid, "Rule.max_lag", self.max_lag, "None or evaluations >= 0")
        self._check_parts()
        for signal in self.signals:
            fits = all(_can_measure(self.what, self.when.asks, probe) for probe in signal.probes)
            if not fits or (self.when.asks and signal.over != "lead"):
                raise ValueError(
                    f"Rule on {self.label}: {type(self.when).__name__} needs {_needed(self.when)}; given "
                    f"{signal}. A schedule fits any site"
                )

    def _check_parts(self) -> None:
        require(
            isinstance(self.what, Site),
            "Rule.what",
            self.what,
            "a site: Attention, Mlp, Span, Output, Guided or Branch",
        )
        require(hasattr(self.when, "plan"), "Rule.when", self.when, "a controller, e.g. Every(2)")
        require(hasattr(self.how, "predict"), "Rule.how", self.how, "a predictor, e.g. Hold()")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What has to be measured for the controller and the predictor."""
        return (*self.when.signals, *self.how.signals)

    @property
    def needs_noise(self) -> bool:
        """Whether what it plans by or measures depends on the noise level."""
        probes = (probe for signal in self.signals for probe in signal.probes)
        return self.when.needs_noise or any(isinstance(probe, FilteredLatent) for probe in probes)

    @property
    def label(self) -> str:
        """Name of this rule in traces and tables."""
        return self.what.label


@dataclass(frozen=True)
class Policy:
    """What to skip, when, and how: an immutable description that serves any number of generations.

    Attributes:
        rules: at most one rule for each site.
        name: shown in traces and tables.
        notes: remarks for the trace, e.g. what was switched off for this length of run.
        is_partial: rules on parts of blocks that match nothing in a model stand aside with a note, as long as
            one rule matches; otherwise each of them is an error.

    Raises:
        ValueError: two rules on one site.
    """

    rules: tuple[Rule, ...] = ()
    name: str = "custom"
    notes: tuple[str, ...] = ()
    is_partial: bool = False

    def __post_init__(self) -> None:
        require(
            not isinstance(self.rules, Rule), "Policy.rules", self.rules, "a tuple of rules: Policy((rule,))"
        )
        for one, other in combinations(self.rules, 2):
            if _overlap(one.what, other.what):
                raise ValueError(
                    f"Policy {self.name!r}: two rules on one site: {one.label} and {other.label}"
                )
            sites = (one.what, other.what)
            if any(isinstance(site, Guided) for site in sites):
                raise ValueError(
                    f"Policy {self.name!r}: {one.label} and {other.label}: where the guided output is "
                    "skipped nothing of the model runs, so its rule goes alone"
                )
            if any(isinstance(s, Span) and (s.start or s.num_after) for s in sites) and any(
                isinstance(s, (Attention, Mlp)) for s in sites
            ):
                raise ValueError(
                    f"Policy {self.name!r}: {one.label} and {other.label}: rules on parts of blocks go with "
                    "a Span of the whole stack only, for the other blocks lie outside it"
                )

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """A policy is its own method: the same for every model and length of run."""
        del model, num_evaluations
        return self


def _can_measure(site: Site, asks: bool, probe: Probe) -> bool:
    """Whether a probe can be looked at for a site: before it, where the controller asks in mid-forward."""
    if isinstance(site, Guided):
        return isinstance(probe, (Forecast, Correction))
    if isinstance(site, Output):
        return isinstance(probe, (Latent, Prediction))
    if not isinstance(site, Span):
        return False
    if not asks:
        return isinstance(probe, BlockProbe)
    if isinstance(probe, PrefixResidual):
        return probe.stop == site.start
    return isinstance(probe, (SpanInput, StackInput, AttentionInput, TimeEmbedding, FilteredLatent))


def _needed(when: Controller) -> str:
    if not when.asks:
        return "a Span, measured at an AttentionResidual or RestResidual"
    return (
        "something measured before the site, over the lead branch: for a Span(start=n) its SpanInput, the "
        "StackInput, an AttentionInput, a TimeEmbedding, a FilteredLatent or a PrefixResidual(stop=n), n >= "
        "1; for an Output the Latent"
    )


def _overlap(one: Site, other: Site) -> bool:
    if isinstance(one, Attention) and isinstance(other, Attention):
        return _share_kinds(one, other)
    if isinstance(one, Mlp) and isinstance(other, Mlp):
        lasts = [inf if site.last is None else site.last for site in (one, other)]
        return _share_kinds(one, other) and max(one.first, other.first) <= min(lasts)
    return type(one) is type(other)


def _share_kinds(one: Part, other: Part) -> bool:
    """Whether one names a kind that the other covers; two that name none cover the same."""
    pairs = [(one, kind) for kind in other.kinds] + [(other, kind) for kind in one.kinds]
    return not pairs or any(site.covers_kind(kind) for site, kind in pairs)
