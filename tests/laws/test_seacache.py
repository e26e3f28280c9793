"""SeaCache against diffusers' own hook, and the noise levels it reads against what schedulers add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.hooks.sea_cache import SeaCacheConfig, _apply_sea_filter

import keystep
from keystep.methods import SeaCache
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.registry import find_spec
from keystep.solver import levels_of, shares_of
from keystep.what.spectrum import filter_frames
from tests.families import hunyuan_like, separate, wan_like
from tests.zoo import LATTE, STEPS, WAN

# diffusers' own, on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_the_filter_is_that_of_diffusers(noise: float) -> None:
    latent = torch.randn(4, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = _apply_sea_filter(latent.movedim(0, -1), noise, 3.0).movedim(-1, 0)
    torch.testing.assert_close(filter_frames(latent[None], noise, 3.0)[0], expected, rtol=1e-4, atol=1e-5)


@contextmanager
def sea_cache_of_diffusers(pipe: Any, config: SeaCacheConfig) -> Iterator[list[str]]:
    """The hook attached; a letter for every evaluation."""
    transformer, letters, ran = pipe.transformer, [], []

    def note(*args: Any) -> None:
        letters.append("C" if ran else "s")
        ran.clear()

    handles = [
        transformer.blocks[2].attn1.register_forward_hook(lambda *args: ran.append(True)),
        transformer.register_forward_hook(note),
    ]
    transformer.enable_cache(config)
    try:
        yield letters
    finally:
        transformer.disable_cache()
        for handle in handles:
            handle.remove()
    assert letters[::2] == letters[1::2], "both branches decide by the same latent"
    del letters[1::2]


@pytest.mark.parametrize(("order", "limit"), [(0, 2), (0, 0), (1, 3)])
def test_decisions_and_latents_are_those_of_diffusers_hook(order: int, limit: int) -> None:
    """On even timesteps, where an extrapolation by time and one by the count of steps are the same."""
    pipe = WAN.build()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    threshold = 0.6
    config = SeaCacheConfig(threshold, order, retention_steps=order + 1, max_consecutive_cached=limit)
    with sea_cache_of_diffusers(pipe, config) as letters:
        expected = WAN.sample(pipe)
    with keystep.accelerate(pipe, SeaCache(threshold, order, limit or None)) as session:
        latents = WAN.sample(pipe)
    assert session.trace is not None
    ours = "".join("s" if row.skipped else "C" for row in session.trace.rows)
    assert ours == "".join(letters) and 3 < ours.count("s") < STEPS - 3
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def add_noise(scheduler: Any, video: float, noise: float, time: torch.Tensor) -> float:
    """One number of a noisy latent."""
    x, n = (torch.full((1, 1, 1, 1, 1), value) for value in (video, noise))
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(x, time[None], n).item()
    return scheduler.add_noise(x, n, time[None]).item()


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (DDIMScheduler, {"beta_schedule": "linear"}),
        (CogVideoXDDIMScheduler, {"rescale_betas_zero_snr": True}),
        (PNDMScheduler, {}),
        (DPMSolverMultistepScheduler, {}),
        (UniPCMultistepScheduler, {}),
        (UniPCMultistepScheduler, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        (EulerAncestralDiscreteScheduler, {}),
        (EDMEulerScheduler, {}),
        (FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    ],
)
def test_noise_levels_are_what_the_scheduler_adds(cls: Any, config: dict[str, Any]) -> None:
    scheduler = cls(**config)
    scheduler.set_timesteps(8)
    levels = shares_of(scheduler)
    assert len(levels) == len(scheduler.timesteps)
    for time, level in zip(scheduler.timesteps, levels, strict=True):
        of_video, of_noise = add_noise(scheduler, 1.0, 0.0, time), add_noise(scheduler, 0.0, 1.0, time)
        assert level == pytest.approx(of_noise / (of_noise + of_video), abs=1e-3)


def test_noise_levels_of_open_sora() -> None:
    scheduler = RectifiedFlowScheduler()
    scheduler.set_timesteps(8, height=64, width=64, num_frames=17)
    assert shares_of(scheduler) == pytest.approx((scheduler.timesteps / 1000).tolist())


def test_noise_levels_from_the_other_end_and_none() -> None:
    usual, inverted = FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    for scheduler in (usual, inverted):
        scheduler.set_timesteps(5)
    assert shares_of(inverted) == pytest.approx(shares_of(usual), rel=1e-4)

    class Bare:
        timesteps = torch.arange(4)

    assert shares_of(Bare()) == []


def test_without_noise_levels_it_says_what_to_pass() -> None:
    pipe = LATTE.build()
    with keystep.accelerate(pipe.transformer, "seacache", guidance="separate:cond,uncond") as session:
        with pytest.raises(ValueError, match=r"noises: given 0 for 4 evaluations.*begin\(\.\.\., noises"):
            session.begin(4, guided=False, times=range(4, 0, -1))
        session.begin(4, guided=False, times=range(4, 0, -1), noises=[0.9, 0.6, 0.3, 0.1])


@pytest.mark.parametrize(
    ("families", "name", "channels"),
    [
        (wan_like.FAMILIES, "wan-i2v", 4),
        (hunyuan_like.FAMILIES, "hunyuan-i2v-concat", 4),
        (separate.FAMILIES, "kandinsky-5-i2v", 4),
    ],
)
def test_channels_of_conditions_are_left_out(families: Any, name: str, channels: int) -> None:
    family = next(family for family in families if family.name == name)
    pipe, seen = family.build(), []
    spec = find_spec(pipe.transformer, pipe)

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((kwargs["hidden_states"], spec.latent_frames(module, kwargs)))

    pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
    family.sample(pipe, steps=1)
    given, frames = seen[0]
    assert given.shape[spec.latent.index("C")] > channels
    assert frames.shape[1] == channels and frames.shape[2:] == torch.Size(
        given.shape[spec.latent.index(axis)] for axis in "THW"
    )


def test_flow_steps_at_sigmas_beyond_one_hold_the_whole_data() -> None:
    """Cosmos 2 gives them sigmas of 80 to .002, and as flow what is left of the latent without the data."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    scheduler.sigmas = torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0])
    assert shares_of(scheduler) == pytest.approx([80 / 81, 10 / 11, 1 / 2, 0.1 / 1.1])
    data, noise = torch.randn(2, 3, 4)
    for level in levels_of(scheduler):
        latent = level.alpha * data + level.sigma * noise
        assert torch.allclose(level.to_data(latent, (latent - data) / level.sigma), data, atol=1e-4)
        assert torch.allclose(latent / level.scale, torch.lerp(data, noise, level.share), atol=1e-5)
