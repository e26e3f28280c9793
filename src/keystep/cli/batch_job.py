"""What a worker of `keystep batch` does: load a pipeline once, then make one video after another."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keystep.batch import Figures, Item, Product
from keystep.cli.options import Dtype

if TYPE_CHECKING:
    from keystep.batch.workers import Maker
    from keystep.metrics.generation import Generation

# Our words (see `keystep.cli.pipeline`) that an item has, beside its prompt.
WORDS = (
    "prompt", "negative-prompt", "steps", "guidance", "frames", "height", "width", "resolution", "aspect",
    "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class VideoJob:
    """Videos of one model.

    Attributes:
        model: of `keystep.load`; loading: further arguments of it.
        dtype: precision of the weights.
        device: where it runs.
        fps: frames per second of the files.
    """

    model: str
    loading: Mapping[str, Any]
    dtype: Dtype
    device: str
    fps: float

    def load(self) -> Maker:
        """Load the pipeline."""
        from tqdm import tqdm

        from keystep.cli.pipeline import load_pipeline

        tqdm.set_lock(threading.RLock())  # its own is a semaphore that a killed process would leave behind
        return partial(self._make, load_pipeline(self.model, self.dtype, self.device, self.loading))

    def _make(self, pipe: Any, item: Item) -> Product:
        from keystep.cli.method_options import build_named
        from keystep.cli.pipeline import fit_arguments
        from keystep.media import choose_scale, encode_mp4
        from keystep.metrics.generation import run_pipeline

        arguments = fit_arguments(type(pipe), read_words(item))
        method = build_named(item.method, item.options)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            made = run_pipeline(pipe, method, arguments, item.seed)
        remarks = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
        video = encode_mp4(made.video, self.fps, choose_scale(made.video))
        return Product(video, _count(made, tuple(dict.fromkeys(remarks))))


def read_words(item: Item) -> dict[str, Any]:
    """An item's values by our words."""
    return {word: getattr(item, word.replace("-", "_")) for word in WORDS}


def _count(made: Generation, notes: tuple[str, ...]) -> Figures:
    if made.trace is None:
        return Figures(loop_s=made.loop_s, total_s=made.total_s, notes=notes)
    return Figures(
        loop_s=made.loop_s,
        total_s=made.total_s,
        num_evaluations=made.trace.num_evaluations,
        key_steps=tuple(made.trace.key_steps),
        peak_cache_bytes=made.trace.peak_cache_bytes,
        notes=notes,
    )
