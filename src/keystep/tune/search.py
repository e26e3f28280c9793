"""The search itself: an Optuna study on disk, whose trials generate every prompt and seed."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

import keystep
from keystep.methods.knobs import Knob
from keystep.metrics.experiment import Progress
from keystep.metrics.generation import Generation, run_pipeline
from keystep.metrics.outcome import low_percentile
from keystep.metrics.quality import compute_psnr
from keystep.tune.front import Score, Tried
from keystep.tune.plain import Plain, PlainVideos
from keystep.tune.space import suggest

STUDY = "study.log"
IDENTICAL = 100.0  # dB, in the place of infinity
DEFAULT, SETTINGS = "default", "settings"  # attributes of the study
LOW = "low"


@dataclass(frozen=True)
class Task:
    """What is tried, and on what.

    Attributes:
        pipe: the loaded pipeline.
        arguments: keyword arguments of every call beside the prompt.
        items: prompts and seeds.
        build: values of the knobs -> what `keystep.accelerate` takes; ValueError where they do not go
            together.
        space: knob -> range.
        plain: where plain videos are kept.
        progress: told about every generation and step.
    """

    pipe: Any
    arguments: Mapping[str, Any]
    items: Sequence[tuple[str, int]]
    build: Callable[[Mapping[str, Any]], Any]
    space: Mapping[str, Knob]
    plain: PlainVideos
    progress: Progress | None = None

    def measure(self, values: Mapping[str, Any]) -> Score:
        """Every prompt and seed with these values.

        Raises:
            ValueError: the values do not go together, or not with the model.
        """
        method = self.build(values)
        flops, plain_flops, psnrs = 0.0, 0.0, []
        for prompt, seed in self.items:
            plain = self.plain.get(prompt, seed, lambda p=prompt, s=seed: self._make_plain(p, s))
            made = self._run(
                ", ".join(f"{k}={v}" for k, v in values.items()) or DEFAULT, method, prompt, seed
            )
            flops, plain_flops = flops + made.flops, plain_flops + plain.flops
            psnrs.append(min(IDENTICAL, compute_psnr(made.video, plain.video)))
        return Score(flops / plain_flops, fmean(psnrs), low_percentile(psnrs))

    def _make_plain(self, prompt: str, seed: int) -> Plain:
        made = self._run("plain", None, prompt, seed)
        return Plain(made.video, made.flops)

    def _run(self, label: str, method: Any, prompt: str, seed: int) -> Generation:
        if self.progress is not None:
            self.progress.begin_generation(label)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", keystep.KeystepWarning)  # that nothing was skipped is a result
            return run_pipeline(
                self.pipe,
                method,
                {**self.arguments, "prompt": prompt},
                seed,
                should_count_flops=True,
                on_step=None if self.progress is None else self.progress.end_step,
            )


class Search:
    """A study in a folder, gone on with if it is there.

    Args:
        folder: where `study.log` lies; made if absent.
        settings: what every trial depends on, JSON values; among it `likeness`, which PSNR the search is
            about: `"mean"` or `"low"`, the 10th percentile.

    Raises:
        ValueError: the folder holds a study with other settings, or is unreadable.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._is_low = settings["likeness"] == LOW
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
        self.study = optuna.create_study(
            storage=storage, study_name="keystep", directions=["minimize", "maximize"], load_if_exists=True
        )
        self._check_settings(folder, json.loads(json.dumps(settings)))
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.study.tell(trial.number, state=TrialState.FAIL)  # it was interrupted

    def _check_settings(self, folder: Path, settings: dict[str, Any]) -> None:
        before = self.study.user_attrs.get(SETTINGS)
        if before is None:
            self.study.set_user_attr(SETTINGS, settings)
            return
        for key in {**before, **settings}:
            if before.get(key) != settings.get(key):
                raise ValueError(
                    f"--out: {folder} holds a search with {key} = {before.get(key)!r}, given now: "
                    f"{settings.get(key)!r}; give another folder"
                )

    def count_missing(self, num_trials: int) -> int:
        """Trials left of `num_trials`; interrupted ones do not count."""
        states = [TrialState.COMPLETE, TrialState.PRUNED]
        return max(0, num_trials - len(self.study.get_trials(deepcopy=False, states=states)))

    def run(self, task: Task, num_trials: int, time_limit_s: float | None = None) -> None:
        """Try until so many trials are in the study, the method as it comes before all; begin none beyond the
        time limit.
        """
        end = None if time_limit_s is None else time.monotonic() + time_limit_s
        if DEFAULT not in self.study.user_attrs:
            self.study.set_user_attr(DEFAULT, asdict(task.measure({})))
        # a seed of its own for each continuation, or it would try the first ones again
        seed = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        while self.count_missing(num_trials) and (end is None or time.monotonic() < end):
            self.study.optimize(lambda trial: self._try(trial, task), n_trials=1)

    def _try(self, trial: optuna.Trial, task: Task) -> tuple[float, float]:
        values = suggest(trial, task.space)
        score = self._known(values)
        if score is None:
            try:
                score = task.measure(values)
            except ValueError as error:
                trial.set_user_attr("error", str(error))
                raise optuna.TrialPruned from error
        trial.set_user_attr("values", values)
        trial.set_user_attr("score", asdict(score))
        return score.compute, self._likeness(score)

    def _known(self, values: dict[str, Any]) -> Score | None:
        """The score of values that were tried before: a generation always gives the same video."""
        return next((one.score for one in self.tried if one.values == values), None)

    def _likeness(self, score: Score) -> float:
        return score.psnr_low if self._is_low else score.psnr

    @property
    def tried(self) -> list[Tried]:
        """Everything that was tried, the method as it comes first."""
        rows = [(-1, {}, self.study.user_attrs[DEFAULT])] if DEFAULT in self.study.user_attrs else []
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        rows += [(trial.number, trial.user_attrs["values"], trial.user_attrs["score"]) for trial in done]
        scores = [(number, values, Score(**score)) for number, values, score in rows]
        return [Tried(number, values, score, self._likeness(score)) for number, values, score in scores]

    @property
    def errors(self) -> list[str]:
        """Why settings could not be tried, each message once."""
        pruned = self.study.get_trials(deepcopy=False, states=[TrialState.PRUNED])
        return sorted({trial.user_attrs["error"] for trial in pruned})
