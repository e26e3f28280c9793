"""Loads the toy pipelines with the weights that ship inside the package."""

from pathlib import Path
from typing import TypeVar

import torch

from keystep.models.toy.flow import ToyFlowPipeline
from keystep.models.toy.pipeline import ToyPipeline

WEIGHTS = Path(__file__).parent / "weights"
FLOW_WEIGHTS = Path(__file__).parent / "weights_flow"
_Pipeline = TypeVar("_Pipeline", bound=ToyPipeline)


def load_toy(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> ToyPipeline:
    """Load the trained toy pipeline; nothing is downloaded.

    Args:
        device: where the weights go.
        dtype: of all weights; on disk they are float16.

    Raises:
        FileNotFoundError: the package was installed without its weights.
    """
    return _load(ToyPipeline, WEIGHTS, device, dtype)


def load_toy_flow(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> ToyFlowPipeline:
    """Load the second trained toy pipeline, a Wan transformer; arguments and errors as `load_toy`."""
    return _load(ToyFlowPipeline, FLOW_WEIGHTS, device, dtype)


SHIPPED = {"toy": load_toy, "toy-flow": load_toy_flow}  # by name in the catalogue


def _load(cls: type[_Pipeline], folder: Path, device: str | torch.device, dtype: torch.dtype) -> _Pipeline:
    if not (folder / "model_index.json").exists():
        raise FileNotFoundError(f"no toy weights in {folder}; train them with scripts/train_toy.py")
    pipe = cls.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    return pipe.to(device)
