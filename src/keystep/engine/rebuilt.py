"""A guidance branch as a site: rebuilt from the conditional output, or its difference from it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from keystep.engine.run import Run
from keystep.models.spec import ModelSpec
from keystep.policy import Rule
from keystep.what import Branch


class Rebuilt:
    """The rule on a branch, in one model call.

    Args:
        run: the generation.
        rule: on a `Branch`.
        sites: names of the output's tensors.
        spec: of the model.
        arguments: of the call.
    """

    def __init__(
        self, run: Run, rule: Rule, sites: Sequence[str], spec: ModelSpec, arguments: Mapping[str, Any]
    ) -> None:
        assert isinstance(rule.what, Branch)
        self.run, self.rule, self.spec = run, rule, spec
        self.branch = rule.what.name
        self._sites = sites
        self._arguments = arguments

    def keep(self, samples: Sequence[torch.Tensor], leads: Sequence[torch.Tensor]) -> None:
        """Store how computed samples of the branch differ from the conditional ones, if it will be used."""
        if not self.run.keeps(self.rule, self.branch):
            return
        for index, site in enumerate(self._sites):
            # detached from the output's storage: float32 keeps small differences of half-precision outputs
            difference = samples[index].float() - leads[index].float()
            frames = self.spec.to_frames(difference, self._arguments, index)
            self.run.push(self.rule, site, self.branch, frames)

    def predict(self, leads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The samples of the branch from the conditional ones."""
        samples = []
        for index, (site, lead) in enumerate(zip(self._sites, leads, strict=True)):
            difference = self.spec.from_frames(self.run.predict(self.rule, site, self.branch), index)
            samples.append((lead.float() + difference).to(lead.dtype))
        return samples
