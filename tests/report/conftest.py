"""A report with three made-up methods on two prompts, the size of the toy model's videos."""

import math
import shutil

import numpy as np
import pytest

from keystep.engine.trace import Decision, Row, Trace
from keystep.media import encode_mp4
from keystep.metrics.outcome import Outcome, TimedPair, summarise
from keystep.metrics.quality import compare_videos
from keystep.report import Clip, Group, Report

NUM_STEPS, NUM_FRAMES, FPS = 30, 16, 8.0


def make_video(damage: float, start: int = 4) -> np.ndarray:
    video = np.full((NUM_FRAMES, 32, 32, 3), 0.25)
    for frame in range(NUM_FRAMES):
        left = start + frame
        video[frame, 10:20, left : left + 10] = (0.85, 0.2, 0.15)
    noise = np.random.default_rng(0).normal(scale=1.0, size=video.shape)
    growing = np.linspace(0.5, 1.5, NUM_FRAMES)[:, None, None, None]
    return np.clip(video + damage * growing * noise, 0, 1)


def make_trace(method: str, interval: int) -> Trace:
    trace = Trace(
        method, "toy", NUM_STEPS, guided=True, peak_cache_bytes=1_310_720, hidden_state_bytes=655_360
    )
    for evaluation in range(1, NUM_STEPS + 1):
        is_key = evaluation % interval == 1
        span = Decision("compute" if is_key else "skip", "distance" if is_key else "held")
        decisions = {"span": span}
        if interval == 2:
            decisions["uncond"] = Decision("compute" if evaluation < 12 or is_key else "skip", "scheduled")
        branches = ("uncond", "cond") if decisions.get("uncond", span).action == "compute" else ("cond",)
        signals = {"distance": 0.02 + 0.1 * math.exp(-evaluation / 8)} if is_key and interval > 2 else {}
        trace.rows.append(
            Row(
                evaluation,
                1000 - 33.0 * evaluation,
                "transformer",
                branches,
                decisions,
                signals,
                655_360,
                0.03,
            )
        )
    trace.is_complete = True
    return trace


def make_outcome(method: str, prompt: str, damage: float, interval: int) -> Outcome:
    plain, video = make_video(0), make_video(damage)
    is_plain = method == "plain"
    return Outcome(
        prompt=prompt,
        seed=0,
        method=method,
        quality=None if is_plain else compare_videos(video, plain),
        flops=1e9 if is_plain else 1e9 / interval,
        plain_flops=1e9,
        uncounted=(),
        pairs=() if is_plain else (TimedPair(1.0, 1.1 / interval, 1.2, 0.2 + 1.1 / interval),) * 2,
        trace=None if is_plain else make_trace(method, interval).to_dict(),
    )


@pytest.fixture(scope="session")
def sample_report() -> Report:
    methods = {"plain": (0.0, 1), "fastercache": (0.01, 2), "adacache": (0.0, 3), "adacache+moreg": (0.05, 4)}
    prompts = ["a small red square moving right slowly", "</script><b>a prompt & its markup</b>"]
    groups, outcomes = [], {label: [] for label in methods}
    for prompt in prompts:
        clips = []
        for label, (damage, interval) in methods.items():
            outcome = make_outcome(label, prompt, damage, interval)
            outcomes[label].append(outcome)
            clips.append(Clip(label, encode_mp4(make_video(damage), FPS, scale=8), outcome))
        groups.append(Group(prompt, 0, tuple(clips)))
    return Report(
        title="keystep demo",
        lead="Plain generation beside three ways to skip work, on the tiny model.",
        facts={"model": "toy", "steps": str(NUM_STEPS), "device": "CPU, 2 threads", "torch": "2.13.0"},
        summaries=[summarise(per_method) for per_method in outcomes.values()],
        groups=groups,
        fps=FPS,
        notes=["A note with <angle brackets>."],
    )


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip(
            "no chromium: install the system package `chromium` to look at the page in a real browser"
        )
    return path
