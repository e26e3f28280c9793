"""Rivals: the cache hooks that diffusers brings, each with its documented settings and a sweep of its knob.

They are attached as diffusers' documentation says, by `transformer.enable_cache(config)`. Windows that the
documentation gives in timesteps of a linear schedule cover another part of the run on a shifted one, so the
sweeps give them as a part of the run; the documented ones are measured beside them.
"""

from __future__ import annotations

import ast
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.hooks.sea_cache import SeaCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig

from keystep.lab.contestant import Attach, Bench, Contestant, Name, describe

DIFFUSERS = "diffusers"
NUM_TRAIN_TIMESTEPS = 1000  # what documented windows count in
PAB_WINDOW = (100, 800)  # documented
PAB_SPATIAL = 2  # documented
FRAMES_FIRST = ("CogVideoXTransformer3DModel",)  # latents (B, F, C, H, W); all others (B, C, F, H, W)
# Names of attention modules; the pattern that TaylorSeer brings matches none of these models.
ATTENTION_NAMES = [r".*transformer_blocks\.\d+\.attn\d?", r"blocks\.\d+\.attn\d"]


@contextmanager
def attached(bench: Bench, make_config: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[None]:
    """A hook on the pipeline's transformer until the block is left."""
    transformer = bench.pipe.transformer
    transformer.enable_cache(make_config(bench, **options))
    try:
        yield
    finally:
        transformer.disable_cache()


# ---------------------------------------------------------------- configurations


def _just(config: type[Any]) -> Callable[..., Any]:
    def make(bench: Bench, **options: Any) -> Any:
        del bench
        return config(**options)

    return make


def _pab(bench: Bench, spatial: int | None = None) -> Any:
    window = PAB_WINDOW if spatial is None else cover(bench, PAB_WINDOW)
    every = spatial or PAB_SPATIAL
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=every,
        temporal_attention_block_skip_range=2 * every,  # the paper's 2, 4, 6
        cross_attention_block_skip_range=3 * every,
        spatial_attention_timestep_skip_range=window,
        temporal_attention_timestep_skip_range=window,
        cross_attention_timestep_skip_range=window,
        current_timestep_callback=lambda: bench.pipe.current_timestep,
    )


def _fastercache(bench: Bench, uncond: int = 0, start: float = 0.0) -> Any:
    is_first = type(bench.pipe.transformer).__name__ in FRAMES_FIRST
    config = FasterCacheConfig(
        temporal_attention_block_skip_range=2,
        tensor_format="BFCHW" if is_first else "BCFHW",
        current_timestep_callback=lambda: bench.pipe.current_timestep,
    )
    if not uncond:
        return config
    window = cover(bench, (-1, round((1 - start) * NUM_TRAIN_TIMESTEPS)))
    return replace(
        config,
        unconditional_batch_skip_range=uncond,
        unconditional_batch_timestep_skip_range=window,
        spatial_attention_timestep_skip_range=window,
        temporal_attention_timestep_skip_range=window,
    )


def _magcache(bench: Bench, **options: Any) -> Any:
    if "magcache" not in bench.notes:
        bench.notes["magcache"] = calibrate_magcache(bench)
    ratios = torch.tensor(bench.notes["magcache"])
    return MagCacheConfig(num_inference_steps=bench.num_steps, mag_ratios=ratios, **options)


def calibrate_magcache(bench: Bench) -> list[float]:
    """MagCache's ratios on a development prompt; its calibration run prints them, to be copied by hand."""
    printed = io.StringIO()
    options = {"num_inference_steps": bench.num_steps, "calibrate": True}
    with attached(bench, _just(MagCacheConfig), options), redirect_stdout(printed):
        bench.pipe(**bench.call(bench.subject.development_prompts[0], 0))
    lists = [line for line in printed.getvalue().splitlines() if line.startswith("[1.0")]
    if not lists:
        raise ValueError(f"MagCache's calibration printed no ratios: {printed.getvalue()!r}")
    return ast.literal_eval(lists[0])


def cover(bench: Bench, linear: tuple[int, int]) -> tuple[int, int]:
    """The timesteps between which the same part of this run lies as `linear` covers of a linear schedule."""
    scheduler = type(bench.pipe.scheduler).from_config(bench.pipe.scheduler.config)
    scheduler.set_timesteps(bench.num_steps)
    timesteps = [*scheduler.timesteps.tolist(), -1]

    def at(timestep: int) -> float:
        share = min(max(1 - timestep / NUM_TRAIN_TIMESTEPS, 0.0), 1.0)
        return timesteps[round(share * bench.num_steps)]

    low, high = linear
    return math.ceil(at(low)), math.floor(at(high)) + 1  # both ends are outside of a window


# ---------------------------------------------------------------- the grid: name, configuration, knobs swept

_NAMED = {"cache_identifiers": ATTENTION_NAMES}
_LITE = {"use_lite_mode": True}
GRID: tuple[tuple[str, Callable[..., Any], dict[str, Any], dict[str, tuple[Any, ...]]], ...] = (
    ("PAB", _pab, {}, {"spatial": (2, 3, 4, 6)}),
    ("FasterCache", _fastercache, {}, {"uncond": (3, 5, 8), "start": (0.3, 0.15)}),
    ("FirstBlockCache", _just(FirstBlockCacheConfig), {}, {"threshold": (0.02, 0.1, 0.2, 0.4)}),
    ("MagCache", _magcache, {}, {"threshold": (0.12, 0.24), "max_skip_steps": (3, 6)}),
    ("TaylorSeer", _just(TaylorSeerCacheConfig), {}, {}),
    ("TaylorSeer, attention named", _just(TaylorSeerCacheConfig), _NAMED, {"cache_interval": (2, 3, 4)}),
    ("TaylorSeer-lite", _just(TaylorSeerCacheConfig), _LITE, {"cache_interval": (2, 3, 4)}),
    ("SeaCache", _just(SeaCacheConfig), {}, {}),
)


def hooks() -> list[Contestant]:
    """Every hook of diffusers for video transformers; the documented setting is the default."""
    made = []
    for name, make, fixed, sweep in GRID:
        swept = (
            [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())] if sweep else []
        )
        for knobs in ({}, *swept):
            words, use = Name(DIFFUSERS, name, describe(knobs)), _use(make, {**fixed, **knobs})
            made.append(Contestant(words, use, is_default=not knobs))
    return made


def _use(make_config: Callable[..., Any], options: Mapping[str, Any]) -> Attach:
    return lambda bench: attached(bench, make_config, options)
