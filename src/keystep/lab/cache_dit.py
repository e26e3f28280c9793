"""Rival: cache-dit, where it is installed (the extra `bench`).

Attached by `cache_dit.enable_cache(pipe)`, and by a `BlockAdapter` for pipelines of ours, which it cannot
know, as its documentation says for custom models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from keystep.lab.contestant import Attach, Bench, Contestant, Name, describe

CACHE_DIT = "cache-dit"
PACKAGE = "cache_dit"
MISSING = "cache-dit is not installed, so it is not measured: pip install '.[bench]' in keystep's sources"

# Transformer class -> (its block list, the pattern of a block's arguments and results, whether the guidance
# branches are calls of their own), for pipelines of ours.
BLOCKS = {"WanTransformer3DModel": ("blocks", "Pattern_2", True)}

# Its DBCache looks at the first block (F1) and skips the others. The documented default looks at eight.
FIRST_BLOCK = {"Fn_compute_blocks": 1, "max_warmup_steps": 4}
THRESHOLDS = (0.03, 0.08, 0.15, 0.3, 0.6)
DEFAULT_THRESHOLD = 0.08


def is_installed() -> bool:
    """Whether the package is there, without importing it."""
    return find_spec(PACKAGE) is not None


def adapters() -> list[Contestant]:
    """Its default, its first-block cache over thresholds, and the same with its TaylorSeer calibrator."""
    made = [Contestant(Name(CACHE_DIT, "DBCache", "default"), _use({}, False), is_default=True)]
    for name, has_taylor in (("DBCache, first block", False), ("DBCache, first block + TaylorSeer", True)):
        for threshold in THRESHOLDS:
            use = _use({**FIRST_BLOCK, "residual_diff_threshold": threshold}, has_taylor)
            words = Name(CACHE_DIT, name, describe({"threshold": threshold}))
            made.append(Contestant(words, use, is_default=threshold == DEFAULT_THRESHOLD))
    return made


def _use(options: Mapping[str, Any], has_taylor: bool) -> Attach:
    @contextmanager
    def attach(bench: Bench) -> Iterator[None]:
        cache_dit: Any = import_module(PACKAGE)
        logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)  # it writes a page to stdout each time
        target = _target(cache_dit, bench.pipe)
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if has_taylor else None
        cache_dit.enable_cache(
            target, cache_config=cache_dit.DBCacheConfig(**options), calibrator_config=calibrator
        )
        try:
            yield
        finally:
            cache_dit.disable_cache(target)

    return attach


def _target(cache_dit: Any, pipe: Any) -> Any:
    known = BLOCKS.get(type(pipe.transformer).__name__)
    if known is None or not type(pipe).__module__.startswith("keystep."):
        return pipe
    blocks, pattern, has_separate_cfg = known
    return cache_dit.BlockAdapter(
        pipe=pipe,
        transformer=pipe.transformer,
        blocks=getattr(pipe.transformer, blocks),
        forward_pattern=getattr(cache_dit.ForwardPattern, pattern),
        has_separate_cfg=has_separate_cfg,
    )
