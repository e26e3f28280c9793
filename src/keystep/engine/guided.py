"""The guided output as a site: forecast, kept and corrected where the scheduler takes its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keystep.engine.form import Form
from keystep.engine.run import Run
from keystep.engine.stream import Stream
from keystep.solver import StepCall, scheduler_of
from keystep.what import Guided

if TYPE_CHECKING:
    import torch

    from keystep.models.spec import ModelSpec


class GuidedOutput:
    """The guided output of one generation.

    Args:
        run: the generation, its only rule on a `Guided` site.
        spec: of the model.
    """

    def __init__(self, run: Run, spec: ModelSpec) -> None:
        rule = run.rule_on(Guided)
        assert rule is not None, "made for policies with one"
        self.run, self.rule, self._spec = run, rule, spec
        self.forms: dict[tuple[str, int], Form] = {}  # of what the model returned, by its name and call
        self._streams: dict[int, Stream] = {}
        self._num_stepped = 0
        self._is_skipped = False

    @property
    def has_stepped(self) -> bool:
        """Whether the evaluation under way has seen a step of the scheduler."""
        return self._num_stepped > 0

    def open_call(self, model: str, condition: torch.Tensor | None) -> tuple[int, bool]:
        """A model call begins: which of its evaluation it is, and whether it is skipped."""
        number = self.run.open_whole_call(model, condition)
        self._is_skipped = self.run.step_of(self.rule).action == "skip"
        self._num_stepped = 0
        return number, self._is_skipped

    def form_of(self, model: str, number: int) -> Form | None:
        """What a call returns that is not made; None = no model was called before.

        Guidance that sets in where evaluations are skipped makes a call like the first one, and an expert
        that takes over there (Wan 2.2) returns what the one before it did.
        """
        own = self.forms.get((model, number)) or self.forms.get((model, 0))
        return own or next(iter(self.forms.values()), None)

    def take_step(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, bool]:
        """The scheduler's step on what was computed or is forecast, and whether the evaluation is over.

        A pipeline may have several latents, each with a scheduler of its own (LTX-2's audio).
        """
        scheduler = scheduler_of(step)
        call = StepCall.read(scheduler, args, kwargs)
        stream = self._streams.get(id(scheduler))
        if stream is None:
            site = f"guided:{len(self._streams)}"
            stream = Stream(self.run, self.rule, site, scheduler, call, self._spec.channel_axis(call.sample))
            self._streams[id(scheduler)] = stream
        result = stream.step(step, call, self._is_skipped)
        self._num_stepped += 1
        return result, self._num_stepped >= len(self._streams)
