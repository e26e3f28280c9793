"""Muon: momentum whose matrices are made orthogonal before each update (Jordan et al. 2024).

Algorithm and the quintic's constants: https://kellerjordan.github.io/posts/muon/. Differs from
`torch.optim.Muon`: matrices of one shape are stacked and iterated together, and the iteration's dtype is a
choice, because bfloat16 is fast only on CPUs with AVX512-BF16 or AMX.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_EPS = 1e-7


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Push all singular values of each matrix towards 1 by five Newton-Schulz steps.

    Args:
        matrices: (stack, rows, columns), float.
        dtype: of the iteration.

    Returns:
        Same shape and dtype; singular values within about 0.7 to 1.2.
    """
    a, b, c = _QUINTIC
    x = matrices.to(dtype)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonal updates, for weight matrices only.

    Args:
        params: two-dimensional parameters.
        lr: step size; an update's singular values are about ``lr * max(1, rows / columns) ** 0.5``.
        momentum: decay of the momentum buffer; higher = smoother.
        dtype: of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply one update to every parameter that has a gradient."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    stacks[param.shape].append(param)
            for shape, params in stacks.items():
                updates = torch.stack([self._momentum(param, group["momentum"]) for param in params])
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                steps = orthogonalise(updates, self._dtype).mul_(-group["lr"] * scale)
                for param, update in zip(params, steps, strict=True):
                    param.add_(update)

    def _momentum(self, param: Tensor, decay: float) -> Tensor:
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
        assert param.grad is not None
        state["momentum"].lerp_(param.grad, 1 - decay)
        return param.grad.lerp(state["momentum"], decay)
