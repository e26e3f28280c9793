"""Open-Sora-Plan 1.1 in tiny, with random weights, and its released layout on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.transformer import OpenSoraPlanTransformer3DModel, transformer_arguments
from keystep.models.opensora_plan.vae import CausalVideoVAE, vae_arguments
from tests.zoo import randomize

DATA = Path(__file__).parents[1] / "data" / "osp11"
TEXT_WIDTH = 16
FRAMES, LATENT_FRAMES, PIXELS, LATENT = 5, 2, 64, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!'\"-:;<>/"

TRANSFORMER = {
    **json.loads((DATA / "transformer_config.json").read_text()),
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": TEXT_WIDTH,
    "video_length": LATENT_FRAMES,
    "sample_size": [LATENT, LATENT],
    "_class_name": "LatteT2V",
    "_diffusers_version": "0.27.2",
}
VAE = {
    **json.loads((DATA / "vae_config.json").read_text()),
    "hidden_size_mult": [1, 1, 1, 1],
    "lr": 1e-5,
    "loss_type": "opensora.models.ae.videobase.losses.LPIPSWithDiscriminator",
    "loss_params": {"kl_weight": 1e-6},
    "_class_name": "CausalVAEModel",
}


def tiny_transformer() -> OpenSoraPlanTransformer3DModel:
    return randomize(OpenSoraPlanTransformer3DModel(**transformer_arguments(TRANSFORMER)))


def tiny_vae() -> CausalVideoVAE:
    return randomize(CausalVideoVAE(**vae_arguments(VAE)))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter or blank, and one at the end."""
    words = ("<pad>", "</s>", "<unk>", " ", *LETTERS)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_text_encoder() -> T5EncoderModel:
    config = T5Config(
        vocab_size=64,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        use_cache=False,
    )
    return randomize(T5EncoderModel(config))


def tiny_pipeline(**parts: Any) -> OpenSoraPlanPipeline:
    made = {
        "tokenizer": tiny_tokenizer,
        "text_encoder": tiny_text_encoder,
        "vae": tiny_vae,
        "transformer": tiny_transformer,
        "scheduler": PNDMScheduler,
    }
    pipe = OpenSoraPlanPipeline(**{name: parts.get(name) or make() for name, make in made.items()})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_release(folder: Path, pipe: OpenSoraPlanPipeline, size: str = "65x512x512") -> Path:
    """The released layout: `vae/` with training's leftovers, a folder for the size, T5 beside."""
    for part in (size, "vae", "t5"):
        (folder / part).mkdir(parents=True)
    (folder / size / "config.json").write_text(json.dumps(TRANSFORMER))
    unused = {"caption_projection.y_embedding": torch.zeros(120, TEXT_WIDTH)}
    save_file(
        {**pipe.transformer.state_dict(), **unused},
        folder / size / "diffusion_pytorch_model.safetensors",
    )
    assert pipe.vae is not None
    assert pipe.text_encoder is not None
    assert pipe.tokenizer is not None
    (folder / "vae" / "config.json").write_text(json.dumps(VAE))
    leftovers = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.bias": torch.zeros(3)}
    torch.save({"state_dict": {**pipe.vae.state_dict(), **leftovers}}, folder / "vae" / "checkpoint.ckpt")
    pipe.text_encoder.save_pretrained(folder / "t5")
    pipe.tokenizer.save_pretrained(folder / "t5")
    return folder
