"""The training loop of decoder and denoiser: time budget, schedule, averaging, resumable checkpoints."""

import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from keystep.models.toy.train.muon import Muon

_MUON_LR, _ADAM_LR = 0.02, 2e-3
_FINAL_LR_SHARE = 0.01
_AVERAGE_POWER = 7  # the average covers about the last eighth of training


class Task(Protocol):
    """What is trained: a module, its loss, and which weights are matrices for Muon."""

    name: str
    module: nn.Module
    hold_share: float  # share of the budget at full learning rate, before the linear decay

    def loss(self, generator: torch.Generator) -> Tensor:
        """Draw a batch and return its scalar loss."""
        ...

    def matrices(self) -> list[Tensor]:
        """The weights that Muon updates; AdamW gets the others."""
        ...


@dataclass(frozen=True)
class Settings:
    """How long and how to train.

    Args:
        minutes: wall-clock budget of this task, counted over resumes; the schedule ends with it.
        folder: where ``<task>.pt`` and ``<task>.log`` go.
        seed: batches are a function of seed and step alone.
        dtype: of the autocast and of Muon's iteration; bfloat16 pays on CPUs with AVX512-BF16.
        checkpoint_minutes: time between checkpoints; lower = less lost, more writing.
    """

    minutes: float
    folder: Path
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16
    checkpoint_minutes: float = 2.0


def learning_rate_share(progress: float, hold_share: float) -> float:
    """Constant, then linear to one percent; `progress` and `hold_share` in [0, 1]."""
    decay = max(0.0, (min(progress, 1.0) - hold_share) / (1.0 - hold_share))
    return 1.0 + (_FINAL_LR_SHARE - 1.0) * decay


class Trainer:
    """Runs one task to the end of its budget, from its last checkpoint if there is one."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        matrices = task.matrices()
        taken = {id(param) for param in matrices}
        others = [param for param in task.module.parameters() if id(param) not in taken]
        self.optimisers = [
            Muon(matrices, lr=_MUON_LR, dtype=settings.dtype),
            torch.optim.AdamW(others, lr=_ADAM_LR, betas=(0.9, 0.97), weight_decay=0.0),
        ]
        self.base_rates = (_MUON_LR, _ADAM_LR)
        self.average = copy.deepcopy(task.module.state_dict())
        self.step, self.elapsed_s = 0, 0.0
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.path = settings.folder / f"{task.name}.pt"
        if self.path.exists():
            self._load()

    def run(self) -> dict[str, Tensor]:
        """Train until the budget is used up.

        Returns:
            The averaged weights, a state dict of the task's module.
        """
        started = last_saved = time.perf_counter()
        before_s, budget_s = self.elapsed_s, 60 * self.settings.minutes
        recent_loss = 0.0
        while self.elapsed_s < budget_s:
            loss = self._update(self.elapsed_s / budget_s)
            recent_loss = loss if recent_loss == 0.0 else 0.98 * recent_loss + 0.02 * loss
            now = time.perf_counter()
            self.elapsed_s = before_s + now - started
            if now - last_saved > 60 * self.settings.checkpoint_minutes:
                self._log(recent_loss)
                self._save()
                last_saved = now
        self._log(recent_loss)
        self._save()
        return self.average

    def _update(self, progress: float) -> float:
        share = learning_rate_share(progress, self.task.hold_share)
        for optimiser, rate in zip(self.optimisers, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        with torch.autocast("cpu", self.settings.dtype, enabled=self.settings.dtype is not torch.float32):
            loss = self.task.loss(generator)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        weight = 1 - (1 - 1 / self.step) ** (_AVERAGE_POWER + 1)
        for name, value in self.task.module.state_dict().items():
            self.average[name].lerp_(value, weight)
        return float(loss.detach())

    def _log(self, loss: float) -> None:
        line = f"{self.task.name} step {self.step} minutes {self.elapsed_s / 60:.1f} loss {loss:.4f}"
        with (self.settings.folder / f"{self.task.name}.log").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _save(self) -> None:
        state = {
            "module": self.task.module.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        partial = self.path.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self.path)  # atomic: a reader never sees half a checkpoint

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.task.module.load_state_dict(state["module"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
