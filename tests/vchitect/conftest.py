"""A whole Vchitect-2.0 pipeline, tiny, with random weights and word-by-word tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from keystep.models.vchitect.pipeline import VchitectPipeline
from keystep.models.vchitect.transformer import VchitectTransformer3DModel
from tests.zoo import quiet, randomize

WORDS = ("a", "dog", "cat", "runs", "sleeps", "in", "the", "sun", "rain", "blurry")
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def clip(width: int, projection: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    return CLIPTextModelWithProjection(config).eval()


def t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(SPECIAL) + len(WORDS), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config).eval()


def transformer() -> VchitectTransformer3DModel:
    model = VchitectTransformer3DModel(
        sample_size=8,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        out_channels=4,
        pos_embed_max_size=6,
    )
    randomize(model)
    return model


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def make_pipeline() -> VchitectPipeline:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "transformer": transformer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae(),
        "text_encoder": clip(8, 4),
        "text_encoder_2": clip(12, 6),
        "text_encoder_3": t5(24),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "tokenizer_3": tokenizer(),
    }
    return quiet(VchitectPipeline(**parts))


@pytest.fixture(scope="session")
def pipe() -> VchitectPipeline:
    return make_pipeline()


@pytest.fixture
def small() -> dict[str, Any]:
    """A call that takes no time."""
    return {"height": 32, "width": 48, "num_frames": 3, "num_inference_steps": 2, "output_type": "latent"}
