"""In front of a transformer whose guided output is forecast."""

from __future__ import annotations

import inspect
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
        # a module compiled as a whole hides its own behind `forward(*args, **kwargs)`
        self._signature = inspect.signature(getattr(module, "_orig_mod", module).forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the model, or not."""
        arguments = self._signature.bind_partial(*args, **kwargs).arguments
        run = self.session.run_for_call(arguments)
        if run is None:
            return self.call_next(*args, **kwargs)
        try:
            guided = self.session.guided
            assert guided is not None, "made with the run"
            number, is_skipped = guided.open_call(self.name, arguments.get(self.condition))
            form = guided.form_of(self.name, number) if is_skipped else None
            if form is not None:
                return form.fill()
            output = self.call_next(*args, **kwargs)
            guided.forms[self.name, number] = Form.of(output)
            return output
        except BaseException:
            self.session.abort()
            raise
