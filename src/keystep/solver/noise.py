"""Noise levels of a scheduler's evaluations, and how its model's output reads as a prediction of the data.

Everywhere `latent = alpha * data + sigma * noise`. What the network is trained to give (noise, velocity,
flow ...) is linear in latent and data, so one pair of weights tells how to get the data from it and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

FLOW, REVERSE_FLOW = "flow_prediction", "reverse_flow"
PREDICTIONS = ("epsilon", "v_prediction", "sample", FLOW, REVERSE_FLOW)


@dataclass(frozen=True)
class Level:
    """The noise level of one evaluation.

    Attributes:
        alpha, sigma: of the latent, `latent = alpha * data + sigma * noise`.
        latent_weight, output_weight: `data = latent_weight * latent + output_weight * output`, the output
            being the model's after guidance.
    """

    alpha: float
    sigma: float
    latent_weight: float
    output_weight: float

    @property
    def scale(self) -> float:
        """Latent over this is `(1 - share) * data + share * noise`, as in flow matching."""
        return self.alpha + self.sigma

    @property
    def share(self) -> float:
        """Share of noise, 1 = nothing but noise; in flow matching the sigma."""
        return self.sigma / self.scale

    @property
    def slope(self) -> float:
        """By how much the data prediction is expected to move with the latent: 0 at pure noise, 1 without
        any.
        """
        return (1.0 - self.share) / self.scale

    def to_data(self, latent: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The data prediction (x0-hat), float32."""
        return torch.add(latent.float() * self.latent_weight, output.float(), alpha=self.output_weight)

    def to_output(self, latent: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """The model's output that means this data prediction, float32."""
        return torch.sub(data, latent.float(), alpha=self.latent_weight) / self.output_weight


def levels_of(scheduler: Any, is_turned: bool = False) -> list[Level]:
    """One level for each of the scheduler's timesteps, in order; one device read.

    Args:
        scheduler: its timesteps set.
        is_turned: whether flow is given to the step with the other sign, as LTX's conditioning does.

    Raises:
        ValueError: it cannot be told how this scheduler's latents, or its model's outputs, are made up.
    """
    kind = _check_prediction(scheduler)
    read = REVERSE_FLOW if is_turned and kind == FLOW else kind
    levels = [_level(alpha, sigma, read) for alpha, sigma in _mixtures(scheduler, kind)]
    if any(level.output_weight == 0 for level in levels):
        raise _refuse(scheduler, "an evaluation at a latent without noise, which tells nothing")
    return levels


def shares_of(scheduler: Any) -> list[float]:
    """`Level.share` at each of the scheduler's timesteps, whatever the model gives; empty = not told."""
    mixtures = _mixtures(scheduler, _prediction_of(scheduler))
    return [sigma / (alpha + sigma) for alpha, sigma in mixtures]


def _prediction_of(scheduler: Any) -> str | None:
    config = getattr(scheduler, "config", {})
    if config.get("invert_sigmas"):
        return REVERSE_FLOW  # Mochi counts the share of the data
    kind = getattr(type(scheduler), "prediction_type", None) or config.get("prediction_type")
    if kind is None and getattr(scheduler, "sigmas", None) is not None:
        return FLOW  # flow-matching schedulers of diffusers predict the flow without saying so
    return kind


def _check_prediction(scheduler: Any) -> str:
    if _is_preconditioned(scheduler):
        raise _refuse(scheduler, "outputs that are preconditioned outside of its step")
    kind = _prediction_of(scheduler)
    if kind not in PREDICTIONS:
        raise _refuse(scheduler, f"prediction_type={kind!r}")
    if not _mixtures(scheduler, kind):
        raise _refuse(scheduler, "neither sigmas nor alphas_cumprod")
    return kind


def _is_preconditioned(scheduler: Any) -> bool:
    """Whether it is of the kind of EDM, whose latents hold the whole data, and noise beyond that."""
    return hasattr(scheduler, "precondition_outputs")


def _mixtures(scheduler: Any, kind: str | None) -> list[tuple[float, float]]:
    """(alpha, sigma) at each timestep; empty where the scheduler does not tell."""
    timesteps, sigmas = scheduler.timesteps, getattr(scheduler, "sigmas", None)
    if sigmas is None or len(sigmas) < len(timesteps):
        if not hasattr(scheduler, "alphas_cumprod"):
            return []
        table = torch.as_tensor(scheduler.alphas_cumprod).cpu().double()
        kept = table[torch.as_tensor(timesteps).long().cpu()]
        return list(zip(kept.sqrt().tolist(), (1 - kept).sqrt().tolist(), strict=True))
    values = torch.as_tensor(sigmas)[: len(timesteps)].cpu().double().tolist()
    if scheduler.config.get("invert_sigmas"):
        values = [1.0 - value for value in values]
    # Cosmos 2 gives flow-matching steps sigmas up to 80: its latents hold the whole data, and noise beyond
    is_share = all(value <= 1 for value in values)
    if kind in (FLOW, REVERSE_FLOW) and is_share:
        return [(1.0 - value, value) for value in values]
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t") and not _is_preconditioned(scheduler):
        return [((1 + value**2) ** -0.5, value * (1 + value**2) ** -0.5) for value in values]
    return [(1.0, value) for value in values]


def _level(alpha: float, sigma: float, kind: str) -> Level:
    if kind == "sample":
        weights = (0.0, 1.0)
    elif kind == FLOW:
        weights = (1.0, -sigma)
    elif kind == REVERSE_FLOW:
        weights = (1.0, sigma)
    elif kind == "epsilon":
        alpha = max(alpha, 1e-6)
        weights = (1 / alpha, -sigma / alpha)
    else:
        squared = alpha**2 + sigma**2
        weights = (alpha / squared, -sigma / squared**0.5)
    return Level(alpha, sigma, *weights)


def _refuse(scheduler: Any, what: str) -> ValueError:
    return ValueError(
        f"scheduler: {type(scheduler).__name__} has {what}, so its data prediction cannot be read; give the "
        "pipeline a flow-matching, DDIM, DDPM, PNDM, UniPC, DPM-Solver++, Euler or Heun scheduler, or take a "
        "method that works inside the model (keystep methods)"
    )
