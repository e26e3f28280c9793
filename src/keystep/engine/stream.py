"""One latent on its way through one scheduler: its skipped steps are forecast, and corrected afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from keystep.engine.measure import Measurement
from keystep.engine.run import Run
from keystep.engine.untouched import version_of
from keystep.policy import Rule
from keystep.solver import (
    Level,
    Response,
    StepCall,
    find_response,
    is_repeatable,
    levels_of,
    restore,
    take_snapshot,
    tensors_of,
)
from keystep.what import LEAD, Guided
from keystep.when.control import CORRECTION, FORECAST_ERROR
from keystep.when.signal import LatentShare

NOT_CORRECTED = (
    "scheduler: the steps of {name} cannot be taken again as they were, so skipped evaluations are forecast "
    "but not corrected"
)


NOT_MEASURED = (
    "tolerance: the steps of {name} cannot be taken again as they were, so the error that a tolerance is "
    "about cannot be measured; give a speedup"
)

# What is held for a correction: what forecasts put into the latent; or the latent and the scheduler's memory
# at the anchor, and what was done to the latent between steps.
HELD = USED, AGAIN, CHANGES = "used", "again", "changes"


@dataclass
class Anchor:
    """The newest computed evaluation of a stream.

    Attributes:
        index: of the evaluation, from 0.
        data: its data prediction, corrected, (B, ...) float32.
        scheduler: the state after its step, where steps have to be taken again.
        sample: the latent after its step, likewise.
    """

    index: int
    data: torch.Tensor
    scheduler: Any = None
    sample: torch.Tensor | None = None


class Stream:
    """One latent on its way through one scheduler.

    Args:
        run, rule: the generation and its rule.
        site: name of the stream in the histories.
        scheduler: before its first step.
        call: that step.
        channels: axis of the latent's channels; None = it is not known.
    """

    def __init__(
        self, run: Run, rule: Rule, site: str, scheduler: Any, call: StepCall, channels: int | None
    ) -> None:
        assert isinstance(rule.what, Guided)
        self.run, self.rule, self.site, self.scheduler = run, rule, site, scheduler
        is_turned = call.others.get("per_token_timesteps") is not None
        self.levels = levels_of(scheduler, is_turned)[-run.num_evaluations :]
        self._channels = channels
        self._index = 0
        self._anchor: Anchor | None = None
        # since the anchor, where steps have to be taken again: calls, and what was done to the latent before
        self._skipped: list[tuple[StepCall, torch.Tensor | None]] = []
        self._given: torch.Tensor | None = None  # the latent as the last step left it
        self._version = 0  # of its content
        self._is_lost = False  # whether others changed it in place since the anchor: by what, nobody knows
        self._responses: list[Response] | None = None
        self._used: torch.Tensor | None = None  # what the forecasts since the anchor put into the latent
        self._is_corrected = rule.what.correct
        if self._is_corrected:
            self._responses = find_response(scheduler, call, self.levels)
            if self._responses is None and not is_repeatable(scheduler, call):
                self._is_corrected = False
                if CORRECTION in rule.when.signals:
                    raise ValueError(NOT_MEASURED.format(name=type(scheduler).__name__))
                run.trace.notes.append(NOT_CORRECTED.format(name=type(scheduler).__name__))

    def step(self, step: Callable[..., Any], call: StepCall, is_skipped: bool) -> Any:
        """One step of the scheduler, by what stands in front of it; what that returns."""
        level = self.levels[self._index]
        call = self._forecast(call, level) if is_skipped else self._compute(call, level)
        result = call.take(step)
        sample = result[0] if isinstance(result, tuple) else result.prev_sample
        if self._takes_again:
            self._given, self._version = sample, version_of(sample)
        if not is_skipped and self._takes_again:
            assert self._anchor is not None, "made with the computed evaluation"
            self._anchor.scheduler, self._anchor.sample = take_snapshot(self.scheduler), sample
            memory = (tensor for tensor in tensors_of(self.scheduler) if tensor.shape == sample.shape)
            self.run.hold(self.rule, f"{self.site} {AGAIN}", (sample, *memory))
        self._index += 1
        return result

    @property
    def _takes_again(self) -> bool:
        """Whether skipped steps are taken again to correct them; else their response is known."""
        return self._is_corrected and self._responses is None

    # ---------------------------------------------------------------- skipped

    def _forecast(self, call: StepCall, level: Level) -> StepCall:
        data = self._from_channels(self.run.predict(self.rule, self.site, LEAD))
        if self._responses is not None:
            response = self._responses[self._index]
            if self._used is None:
                self._used = data * response.data
                self.run.hold(self.rule, f"{self.site} {USED}", (self._used,))
            else:
                self._used.mul_(response.latent).add_(data, alpha=response.data)
        call = replace(call, output=level.to_output(call.sample, data).to(call.output.dtype))
        if self._takes_again:
            bare = replace(call, output=call.output.new_empty(0), sample=call.sample.new_empty(0))
            self._skipped.append((bare, self._find_change(call)))
            changes = tuple(change for _, change in self._skipped if change is not None)
            self.run.hold(self.rule, f"{self.site} {CHANGES}", changes)
        return call

    def _find_change(self, call: StepCall) -> torch.Tensor | None:
        """What a callback or the pipeline did to the latent since the last step; None = it is the same."""
        assert self._given is not None, "there was a computed evaluation before"
        if version_of(self._given) != self._version:
            self._is_lost = True
        return None if call.sample is self._given else call.sample - self._given

    # ---------------------------------------------------------------- computed

    def _compute(self, call: StepCall, level: Level) -> StepCall:
        """Measure the computed output, move latent and output, make it the anchor."""
        data = level.to_data(call.sample, call.output)
        gap = 0 if self._anchor is None else self._index - self._anchor.index
        delta = self._find_delta(call, data) if gap > 1 and self._is_corrected else None
        self._forget_gap()
        self._measure(call, level, data, delta)
        if delta is not None:
            sample = call.sample.float() + delta
            data.add_(delta, alpha=level.slope)
            output = level.to_output(sample, data).to(call.output.dtype)
            call = replace(call, sample=sample.to(call.sample.dtype), output=output)
        self.run.push(self.rule, self.site, LEAD, self._to_channels(data))
        self._anchor = Anchor(self._index, data)
        return call

    def _forget_gap(self) -> None:
        """Free what was held for a correction, before the next gap's is made: it is several latents."""
        self._anchor = self._used = None
        self._skipped.clear()
        for name in HELD:
            self.run.release(self.rule, f"{self.site} {name}")

    def _find_delta(self, call: StepCall, data: torch.Tensor) -> torch.Tensor | None:
        """How far the latent is from where interpolated outputs would have led, float32; None = unknown."""
        anchor = self._anchor
        assert anchor is not None, "asked behind a gap"
        if self._responses is None:
            change, was_lost = self._find_change(call), self._is_lost
            self._is_lost = False
            return None if was_lost else self._take_again(anchor, data, change) - call.sample.float()
        assert self._used is not None, "steps were skipped"
        old, new = self._weigh(anchor, self._responses)
        return (anchor.data * old).add_(data, alpha=new).sub_(self._used)

    def _weigh(self, anchor: Anchor, responses: list[Response]) -> tuple[float, float]:
        """How much of the anchor's data and of the newest interpolated outputs put into the latent."""
        old = new = 0.0
        for index in range(anchor.index + 1, self._index):
            response, part = responses[index], self._part(anchor, index)
            old = old * response.latent + response.data * (1 - part)
            new = new * response.latent + response.data * part
        return old, new

    def _part(self, anchor: Anchor, index: int) -> float:
        """How far an evaluation is on the way from the anchor to the present one."""
        return (index - anchor.index) / (self._index - anchor.index)

    def _take_again(self, anchor: Anchor, data: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """The latent after the skipped steps with interpolated outputs; the scheduler's memory follows.

        What others did to the latent between the steps is done again, `last` after all of them.
        """
        assert anchor.sample is not None
        sample, scheduler = anchor.sample, anchor.scheduler
        for index, (call, change) in enumerate(self._skipped, start=anchor.index + 1):
            sample = sample if change is None else sample + change
            between = torch.lerp(anchor.data, data, self._part(anchor, index))
            output = self.levels[index].to_output(sample, between).to(call.output.dtype)
            sample = replace(call, sample=sample, output=output).next_sample(scheduler)
        restore(self.scheduler, scheduler)
        return sample.float() if last is None else sample.float() + last

    def _measure(self, call: StepCall, level: Level, data: torch.Tensor, delta: torch.Tensor | None) -> None:
        """The forecast's error, and the correction, beside the latent."""
        if self.run.count_entries(self.rule, self.site, LEAD) < self.rule.how.num_needed:
            return
        latent = call.sample.float() / level.scale
        forecast = self._from_channels(self.run.predict(self.rule, self.site, LEAD))
        self._note(FORECAST_ERROR, forecast - data, latent)
        if delta is not None:
            self._note(CORRECTION, delta / level.scale, latent)

    def _note(self, signal: LatentShare, value: torch.Tensor, latent: torch.Tensor) -> None:
        pair = torch.stack([value, latent])
        measurement = Measurement.begin(self.rule, signal, signal.probe, pair, (), 1, len(latent))
        self.run.recorder.note(measurement)

    # ---------------------------------------------------------------- layout

    def _to_channels(self, data: torch.Tensor) -> torch.Tensor:
        """The data with its channels, or one for all, in dimension 1."""
        return data.unsqueeze(1) if self._channels is None else data.movedim(self._channels, 1)

    def _from_channels(self, data: torch.Tensor) -> torch.Tensor:
        return data.squeeze(1) if self._channels is None else data.movedim(1, self._channels)
