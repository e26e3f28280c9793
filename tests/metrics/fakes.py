"""A pipeline of the smallest kind: a linear "transformer", a scheduler, frames made of the latents."""

from types import SimpleNamespace

import numpy as np
import torch


class FakeScheduler:
    def __init__(self) -> None:
        self.timesteps = torch.empty(0)

    def set_timesteps(self, num_steps: int) -> None:
        self.timesteps = torch.linspace(1000, 1, num_steps)

    def step(self, velocity: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        del timestep
        return latents - velocity / len(self.timesteps)


class FakePipeline:
    """Encodes nothing, runs `num_inference_steps` steps, clips latents to frames of 8 x 8 pixels."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.transformer = torch.nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.transformer.weight.copy_(torch.randn(3, 3, generator=generator))
        self.scheduler = FakeScheduler()

    def set_progress_bar_config(self, **_: object) -> None:
        pass

    @torch.no_grad()
    def __call__(
        self, prompt: str, generator, output_type: str, num_inference_steps: int = 4
    ) -> SimpleNamespace:
        latents = torch.randn(1, 5, 8, 8, 3, generator=generator) + len(prompt)
        self.scheduler.set_timesteps(num_inference_steps)
        for timestep in self.scheduler.timesteps:
            latents = self.scheduler.step(self.transformer(latents), timestep, latents)
        return SimpleNamespace(frames=np.clip(np.tanh(latents.numpy()), 0, 1))
