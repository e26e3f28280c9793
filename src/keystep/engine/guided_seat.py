"""In front of a transformer whose guided output is forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

if TYPE_CHECKING:
    from keystep.engine.seats import Host


@dataclass(frozen=True)
class Form:
    """What a model returned, without its content."""

    leaves: tuple[Any, ...]
    tree: TreeSpec

    @classmethod
    def of(cls, output: Any) -> Form:
        """The form of an output: shapes, dtypes and devices of its tensors, and everything else."""
        leaves, tree = tree_flatten(output)
        return cls(
            tuple(_Blank.of(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves), tree
        )

    def fill(self) -> Any:
        """An output of this form, of zeros."""
        leaves = [leaf.fill() if isinstance(leaf, _Blank) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.tree)


@dataclass(frozen=True)
class _Blank:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Blank:
        return cls(tensor.shape, tensor.dtype, tensor.device)

    def fill(self) -> torch.Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


class GuidedSeat:
    """In front of a transformer whose guided output is forecast: calls it, or returns zeros in its place.

    What the pipeline makes of the zeros does not matter: its step is given the forecast.
    """

    def __init__(self, session: Host, name: str, module: torch.nn.Module, condition: str) -> None:
        self.session, self.name, self.condition = session, name, condition
        self.call_next: Callable[..., Any] = module._call_impl
        self._forms: dict[int, Form] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the model, or not."""
        run = self.session.run_for_call(kwargs)
        if run is None:
            return self.call_next(*args, **kwargs)
        try:
            guided = self.session.guided
            assert guided is not None, "made with the run"
            number, is_skipped = guided.open_call(self.name, kwargs.get(self.condition))
            if is_skipped:
                return self._forms[min(number, len(self._forms) - 1)].fill()
            output = self.call_next(*args, **kwargs)
            self._forms[number] = Form.of(output)
            return output
        except BaseException:
            self.session.abort()
            raise
