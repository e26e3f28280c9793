"""The model's whole output as a site: decided, skipped or kept in front of the model."""

from __future__ import annotations

import torch

from keystep.engine.prober import Prober
from keystep.engine.run import Run
from keystep.policy import Rule
from keystep.what import Latent, Output, Prediction
from keystep.what.branch import join_rows, rows_of


class WholeOutput:
    """The rule on the output, in one model call, for one of the output's tensors.

    Args:
        run: the generation.
        rule: on an `Output` site.
        site: name of the tensor of the output.
        latent: what the model is given, the rows of the active branches.
        channels: axis of the latent's channels.
        prober: of the call.
    """

    def __init__(
        self, run: Run, rule: Rule, site: str, latent: torch.Tensor, channels: int, prober: Prober
    ) -> None:
        self.run, self.rule, self.site, self.prober = run, rule, site, prober
        self._latent, self._channels = latent, channels
        assert isinstance(rule.what, Output)
        self._has_base = rule.what.base == "latent"

    def decide(self) -> bool:
        """Measure the latent, ask where the plan left it open; whether the model is skipped."""
        self.prober.ask(self.rule, self.prober.begin(self.rule, Latent(), self._latent))
        return self.run.step_of(self.rule).action == "skip"

    def predict(self) -> torch.Tensor:
        """The output without the model, the rows of all active branches."""
        parts = []
        for branch in self.prober.active:
            delta = self.run.predict(self.rule, self.site, branch)
            base = rows_of(self._latent, branch, self.prober.active)
            parts.append(delta + self._fit(base, delta) if self._has_base else delta)
        # of one branch, the history's own tensor is the part, into which the sampler may write
        joined = join_rows(parts) if self._has_base else torch.cat(parts)
        return joined.to(self.run.output_dtype)

    def keep(self, sample: torch.Tensor) -> None:
        """Store a computed output, if it will be used."""
        self.run.output_dtype = sample.dtype
        for branch in self.prober.active:
            if self.run.keeps(self.rule, branch):
                rows = rows_of(sample, branch, self.prober.active).detach()
                if self._has_base:
                    # float32 keeps what a difference of half-precision numbers would lose
                    base = rows_of(self._latent, branch, self.prober.active)
                    rows = rows.float() - self._fit(base, rows).float()
                else:
                    rows = rows.clone()
                self.run.push(self.rule, self.site, branch, rows)

    def measure(self, sample: torch.Tensor) -> None:
        """Measure a computed output."""
        self.prober.remember(self.prober.begin(self.rule, Prediction(), sample), is_computed=True)

    def _fit(self, latent: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The latent with as many channels as the output has: less conditions, plus zeros for a variance."""
        given, wanted = latent.shape[self._channels], output.shape[self._channels]
        if given >= wanted:
            return latent.narrow(self._channels, 0, wanted)
        shape = list(latent.shape)
        shape[self._channels] = wanted - given
        return torch.cat([latent, latent.new_zeros(shape)], dim=self._channels)
