"""What one method did with one prompt and seed, and the sum of many such outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from keystep.metrics.quality import Quality

LOW_PERCENTILE = 10


@dataclass(frozen=True)
class TimedPair:
    """Seconds of a plain and an accelerated generation of one round.

    Attributes:
        plain_loop_s, loop_s: the denoising loop alone.
        plain_total_s, total_s: the whole call.
    """

    plain_loop_s: float
    loop_s: float
    plain_total_s: float
    total_s: float


@dataclass(frozen=True)
class Outcome:
    """One method on one prompt and seed, beside the plain video of the same seed.

    Attributes:
        prompt, seed: what was generated.
        method: the label of the method; `"plain"` for the reference itself.
        quality: distance to the plain video; None for the plain video.
        flops, plain_flops: operations of the denoising loop.
        uncounted: attention operators that both leave out.
        pairs: timed pairs; empty for the plain video or when nothing was timed.
        trace: `Trace.to_dict()`; None for the plain video.
        video: file name of the video, relative to the results; empty if none was written.
    """

    prompt: str
    seed: int
    method: str
    quality: Quality | None
    flops: float
    plain_flops: float
    uncounted: tuple[str, ...]
    pairs: tuple[TimedPair, ...]
    trace: dict[str, Any] | None
    video: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: infinite and undefined numbers become the strings `inf` and `nan`."""
        return encode_numbers(asdict(self))

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Outcome:
        """Read `to_dict` back.

        Raises:
            ValueError: a field is missing or of another type.
        """
        return _ADAPTER.validate_python(data)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of `num` values."""

    median: float
    min: float
    max: float
    num: int


@dataclass(frozen=True)
class Summary:
    """One method over all prompts and seeds; None where nothing was measured.

    Attributes:
        method: its label.
        num_videos: outcomes summed up.
        speedup: of the denoising loop, plain / accelerated, over all timed pairs.
        end_to_end: the same of the whole call.
        compute_ratio: FLOPs accelerated / plain.
        realised: median speed-up times compute ratio; 1 = every skipped FLOP became saved time.
        psnr: dB, mean over videos. psnr_low: their 10th percentile.
        ssim, flicker_error: means over videos.
        key_steps: evaluations in which nothing was skipped, a video.
        num_evaluations: of one generation.
        cache_bytes: largest peak of any video.
        hidden_states: the same in units of one hidden state; None if its size is unknown.
    """

    method: str
    num_videos: int
    speedup: Spread | None
    end_to_end: Spread | None
    compute_ratio: float | None
    realised: float | None
    psnr: float | None
    psnr_low: float | None
    ssim: float | None
    flicker_error: float | None
    key_steps: Spread | None
    num_evaluations: int | None
    cache_bytes: int | None
    hidden_states: float | None


def encode_numbers(data: Any) -> Any:
    """Replace floats that JSON cannot hold by the strings `inf`, `-inf` and `nan`, at any depth."""
    if isinstance(data, dict):
        return {key: encode_numbers(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [encode_numbers(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    return data


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Sum up the outcomes of one method.

    Raises:
        ValueError: there are none, or they are of several methods.
    """
    methods = {outcome.method for outcome in outcomes}
    if len(methods) != 1:
        raise ValueError(f"a summary is of one method, not of {sorted(methods)}")
    pairs = [pair for outcome in outcomes for pair in outcome.pairs]
    speedup = _spread([pair.plain_loop_s / pair.loop_s for pair in pairs])
    plain_flops = sum(outcome.plain_flops for outcome in outcomes)
    compute_ratio = sum(outcome.flops for outcome in outcomes) / plain_flops if plain_flops else None
    qualities = [outcome.quality for outcome in outcomes if outcome.quality is not None]
    traces = [outcome.trace for outcome in outcomes if outcome.trace is not None]
    return Summary(
        method=methods.pop(),
        num_videos=len(outcomes),
        speedup=speedup,
        end_to_end=_spread([pair.plain_total_s / pair.total_s for pair in pairs]),
        compute_ratio=compute_ratio,
        realised=speedup.median * compute_ratio if speedup and compute_ratio else None,
        psnr=fmean(q.psnr for q in qualities) if qualities else None,
        psnr_low=low_percentile([q.psnr for q in qualities]) if qualities else None,
        ssim=fmean(q.ssim for q in qualities) if qualities else None,
        flicker_error=fmean(q.flicker_error for q in qualities) if qualities else None,
        key_steps=_spread([len(trace["key_steps"]) for trace in traces]),
        num_evaluations=max((trace["num_evaluations"] for trace in traces), default=None),
        cache_bytes=max((trace["peak_cache_bytes"] for trace in traces), default=None),
        hidden_states=max(filter(None, map(_count_hidden_states, traces)), default=None),
    )


def _count_hidden_states(trace: dict[str, Any]) -> float | None:
    size = trace["hidden_state_bytes"]
    return trace["peak_cache_bytes"] / size if size else None


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values), len(values)) if values else None


def low_percentile(values: Sequence[float]) -> float:
    """What a tenth of the values lie at or below: one of them, never between two.

    Interpolating between two infinite values (identical videos) would give nan.
    """
    return float(np.percentile(values, LOW_PERCENTILE, method="inverted_cdf"))


_ADAPTER = TypeAdapter(Outcome)
