"""Loads the toy pipeline with the weights that ship inside the package."""

from pathlib import Path

import torch

from keystep.models.toy.pipeline import ToyPipeline

WEIGHTS = Path(__file__).parent / "weights"


def load_toy(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> ToyPipeline:
    """Load the trained toy pipeline; nothing is downloaded.

    Args:
        device: where the weights go.
        dtype: of all weights; on disk they are float16.

    Raises:
        FileNotFoundError: the package was installed without its weights.
    """
    if not (WEIGHTS / "model_index.json").exists():
        raise FileNotFoundError(f"no toy weights in {WEIGHTS}; train them with scripts/train_toy.py")
    pipe = ToyPipeline.from_pretrained(WEIGHTS, dtype=dtype, use_safetensors=True, local_files_only=True)
    return pipe.to(device)
