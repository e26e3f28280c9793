"""What the transformer learns: the flow-matching velocity of scene maps, given the prompt.

The text encoder learns along.

Shape suffixes: B clips, C channels, F frames, Y/X grid.
"""

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn

from keystep.models.toy.build import build_transformer
from keystep.models.toy.grammar import FILLER_WORDS, Caption
from keystep.models.toy.latents import scene_maps
from keystep.models.toy.scenes import sample_scenes, sample_training_captions
from keystep.models.toy.text import build_text_encoder, build_tokenizer, embed_prompts

NUM_TRAIN_TIMESTEPS = 1000
_LOGIT_MEAN, _LOGIT_STD, _UNIFORM_SHARE = 2.1, 1.4, 0.15  # motion is decided above t = 0.9
_EMPTY_SHARE = 0.1  # prompts dropped, for classifier-free guidance
_WORD_DROP = 0.05  # size, pace and background are sometimes left open, so that short prompts work too


class DenoiserTask:
    """Velocity regression on clips of the training triples.

    Args:
        batch_size: clips per step.
        num_layers: spatial blocks; there are as many temporal ones.
        compiled: whether to compile the blocks, which takes half a minute and then runs faster.
    """

    name = "denoiser"
    hold_share = 0.4

    def __init__(self, batch_size: int = 8, num_layers: int = 4, compiled: bool = True) -> None:
        self.batch_size = batch_size
        self.tokenizer = build_tokenizer()
        self.transformer, self.text_encoder = build_transformer(num_layers), build_text_encoder()
        self.module: nn.Module = nn.ModuleDict(
            {"transformer": self.transformer, "text_encoder": self.text_encoder}
        )
        for block in self._blocks():
            _use_plain_attention(block)
            if compiled:
                block.compile()

    def _blocks(self) -> list[nn.Module]:
        return [*self.transformer.transformer_blocks, *self.transformer.temporal_transformer_blocks]

    def matrices(self) -> list[Tensor]:
        """Weights of the linear layers inside the blocks."""
        layers = (
            layer for block in self._blocks() for layer in block.modules() if isinstance(layer, nn.Linear)
        )
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
        velocity = self.transformer(noisy, NUM_TRAIN_TIMESTEPS * t_B, embeds, return_dict=False)[0]
        return (velocity.float() - (noise - maps)).square().mean()


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
