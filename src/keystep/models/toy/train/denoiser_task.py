"""What the transformers learn: the flow-matching velocity of scene maps, given the prompt.

Shape suffixes: B clips, C channels, F frames, Y/X grid.
"""

from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from transformers import T5EncoderModel

from keystep.models.toy.build import build_flow_transformer, build_transformer
from keystep.models.toy.grammar import FILLER_WORDS, Caption
from keystep.models.toy.latents import scene_maps
from keystep.models.toy.positions import with_positions
from keystep.models.toy.scenes import sample_scenes, sample_training_captions
from keystep.models.toy.text import build_text_encoder, build_tokenizer, embed_prompts

NUM_TRAIN_TIMESTEPS = 1000
_LOGIT_MEAN, _LOGIT_STD, _UNIFORM_SHARE = 2.1, 1.4, 0.15  # motion is decided above t = 0.9
_EMPTY_SHARE = 0.1  # prompts dropped, for classifier-free guidance
_WORD_DROP = 0.05  # size, pace and background are sometimes left open, so that short prompts work too


class VelocityTask:
    """Velocity regression on clips of the training triples, whatever the transformer.

    Args:
        transformer: called as diffusers' transformers are: latents, timesteps, embedded prompts.
        text_encoder: embeds the prompts.
        blocks: the transformer's blocks; their matrices are Muon's.
        trained: what learns, by name in the checkpoint.
        batch_size: clips per step.
        compiled: whether to compile the blocks, which takes half a minute and then runs faster.
    """

    name: str
    hold_share = 0.4

    def __init__(
        self,
        transformer: nn.Module,
        text_encoder: T5EncoderModel,
        blocks: Sequence[nn.Module],
        trained: dict[str, nn.Module],
        batch_size: int,
        compiled: bool,
    ) -> None:
        self.transformer, self.text_encoder, self.blocks = transformer, text_encoder, blocks
        self.tokenizer = build_tokenizer()
        self.module: nn.Module = nn.ModuleDict(trained)
        self.batch_size = batch_size
        if compiled:
            for block in blocks:
                block.compile()

    def matrices(self) -> list[Tensor]:
        """Weights of the linear layers inside the blocks."""
        layers = (layer for block in self.blocks for layer in block.modules() if isinstance(layer, nn.Linear))
        return [layer.weight for layer in layers]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity ``noise - maps`` at stratified noise levels."""
        captions = sample_training_captions(self.batch_size, generator)
        maps = scene_maps(sample_scenes(captions, generator))
        prompts = [_shorten(caption, generator) for caption in captions]
        embeds = embed_prompts(self.tokenizer, self.text_encoder, prompts)
        t_B = _noise_levels(self.batch_size, generator)
        noise = torch.randn(maps.shape, generator=generator)
        noisy = torch.lerp(maps, noise, t_B[:, None, None, None, None])
        velocity = self.predict(noisy, NUM_TRAIN_TIMESTEPS * t_B, embeds)
        return (velocity.float() - (noise - maps)).square().mean()

    def predict(self, noisy: Tensor, timestep_B: Tensor, embeds: Tensor) -> Tensor:
        """The transformer's velocity of noisy maps (B, C, F, Y, X), same shape."""
        return self.transformer(noisy, timestep_B, embeds, return_dict=False)[0]


class DenoiserTask(VelocityTask):
    """The Latte transformer; the text encoder learns along.

    Args:
        batch_size: clips per step.
        num_layers: spatial blocks; there are as many temporal ones.
        compiled: see `VelocityTask`.
    """

    name = "denoiser"

    def __init__(self, batch_size: int = 8, num_layers: int = 4, compiled: bool = True) -> None:
        transformer, text_encoder = build_transformer(num_layers), build_text_encoder()
        blocks = [*transformer.transformer_blocks, *transformer.temporal_transformer_blocks]
        for block in blocks:
            _use_plain_attention(block)
        trained = {"transformer": transformer, "text_encoder": text_encoder}
        super().__init__(transformer, text_encoder, blocks, trained, batch_size, compiled)


class FlowDenoiserTask(VelocityTask):
    """The Wan transformer; it reads the embeddings of the first toy's text encoder, which stays as it is.

    Args:
        text_encoder: trained.
        batch_size: clips per step.
        num_layers: blocks.
        compiled: see `VelocityTask`.
    """

    name = "flow-denoiser"

    def __init__(
        self,
        text_encoder: T5EncoderModel,
        batch_size: int = 8,
        num_layers: int = 6,
        compiled: bool = True,
    ) -> None:
        transformer = build_flow_transformer(num_layers)
        transformer.set_attention_backend("_native_math")  # the fused one's backward takes 1/3 of a step
        blocks = list(transformer.blocks)
        text_encoder.requires_grad_(False)
        super().__init__(
            transformer, text_encoder, blocks, {"transformer": transformer}, batch_size, compiled
        )

    def predict(self, noisy: Tensor, timestep_B: Tensor, embeds: Tensor) -> Tensor:
        """The transformer's velocity of noisy maps (B, C, F, Y, X), same shape."""
        return super().predict(with_positions(noisy), timestep_B, embeds)


def _use_plain_attention(block: nn.Module) -> None:
    # Sequences have 16 tokens: torch's fused CPU attention would take 2/5 of a step, mostly backward.
    for layer in block.modules():
        if isinstance(layer, Attention):
            layer.set_processor(AttnProcessor())


def _shorten(caption: Caption, generator: torch.Generator) -> str:
    drop = torch.rand(4, generator=generator).tolist()
    if drop[0] < _EMPTY_SHARE:
        return ""
    optional = dict(zip((caption.size, caption.pace, caption.background), drop[1:], strict=True))
    words = (word for word in caption.prompt.split() if word not in FILLER_WORDS)
    return " ".join(word for word in words if optional.get(word, 1.0) >= _WORD_DROP)


def _noise_levels(batch_size: int, generator: torch.Generator) -> Tensor:
    """One level in (0, 1) a clip, evenly spread over the quantiles of the mixture."""
    jitter = torch.rand(batch_size, generator=generator)
    quantile = (torch.arange(batch_size) + jitter) / batch_size
    normal = torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4))
    levels = torch.sigmoid(_LOGIT_MEAN + _LOGIT_STD * normal)
    uniform = torch.rand(batch_size, generator=generator)
    is_uniform = torch.rand(batch_size, generator=generator) < _UNIFORM_SHARE
    return torch.where(is_uniform, uniform, levels)
