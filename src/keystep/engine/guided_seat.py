"""In front of a transformer whose guided output is forecast."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from keystep.engine.form import Form

if TYPE_CHECKING:
    from keystep.engine.seats import Host


class GuidedSeat:
    """In front of a transformer whose guided output is forecast: calls it, or returns zeros in its place.

    What the pipeline makes of the zeros does not matter: its step is given the forecast.
    """

    def __init__(self, session: Host, name: str, module: torch.nn.Module, condition: str) -> None:
        self.session, self.name, self.condition = session, name, condition
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the model, or not."""
        run = self.session.run_for_call(kwargs)
        if run is None:
            return self.call_next(*args, **kwargs)
        try:
            guided = self.session.guided
            assert guided is not None, "made with the run"
            number, is_skipped = guided.open_call(self.name, kwargs.get(self.condition))
            place = (self.name, number)
            if is_skipped and place in guided.forms:
                return guided.forms[place].fill()
            output = self.call_next(*args, **kwargs)
            guided.forms[place] = Form.of(output)
            return output
        except BaseException:
            self.session.abort()
            raise
