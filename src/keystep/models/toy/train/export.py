"""Turns checkpoints into the folder that `ToyPipeline.from_pretrained` reads."""

from pathlib import Path

import torch

from keystep.models.toy.build import build_flow_transformer, build_scheduler, build_transformer
from keystep.models.toy.decoder import SceneDecoder
from keystep.models.toy.flow import ToyFlowPipeline
from keystep.models.toy.loading import load_toy
from keystep.models.toy.pipeline import ToyPipeline
from keystep.models.toy.text import build_text_encoder, build_tokenizer


def pipeline_from_checkpoints(folder: Path) -> ToyPipeline:
    """Build the pipeline from the averaged weights of the last checkpoints, in float32.

    Args:
        folder: holds ``decoder.pt`` and ``denoiser.pt``.
    """
    decoder_state = torch.load(folder / "decoder.pt", weights_only=True)["average"]
    denoiser_state = torch.load(folder / "denoiser.pt", weights_only=True)["average"]
    vae, transformer, text_encoder = SceneDecoder(), build_transformer(), build_text_encoder()
    vae.load_state_dict(decoder_state)
    parts = torch.nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
    parts.load_state_dict(denoiser_state)
    parts.eval()
    return ToyPipeline(transformer, build_scheduler(), text_encoder, build_tokenizer(), vae.eval())


def flow_pipeline_from_checkpoint(folder: Path) -> ToyFlowPipeline:
    """Build the second pipeline from the averaged weights of its last checkpoint, in float32.

    Text encoder, tokenizer and decoder are those of the toy pipeline that ships.

    Args:
        folder: holds ``flow-denoiser.pt``.
    """
    state = torch.load(folder / "flow-denoiser.pt", weights_only=True)["average"]
    transformer, vae, toy = build_flow_transformer(), SceneDecoder(), load_toy()
    torch.nn.ModuleDict({"transformer": transformer}).load_state_dict(state)
    vae.load_state_dict(toy.vae.state_dict())  # a loaded module would be saved with the folder it came from
    return ToyFlowPipeline(
        transformer.eval(), build_scheduler(), toy.text_encoder, build_tokenizer(), vae.eval()
    )


def export(pipe: ToyPipeline, folder: Path) -> None:
    """Save the pipeline in float16 safetensors; the pipeline itself is float16 afterwards."""
    for module in (pipe.transformer, pipe.text_encoder, pipe.vae):
        for param in module.parameters():
            param.data = param.data.to(torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # saved readable by the owner alone, which an installed package must not be
