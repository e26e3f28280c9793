"""The causal video autoencoder: what depends on what, sizes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from keystep.models.opensora_plan import vae_layers
from keystep.models.opensora_plan.vae import CausalVideoVAE, vae_arguments
from tests.opensora_plan.osp_tiny import VAE, tiny_vae


@pytest.fixture(scope="module")
def vae() -> CausalVideoVAE:
    return tiny_vae()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def change_after(x: torch.Tensor, frame: int) -> torch.Tensor:
    changed = x.clone()
    changed[:, :, frame + 1 :] += 1.0
    return changed


@pytest.mark.parametrize(
    ("layer", "last"),
    [
        (vae_layers.CausalConv3d(32, 32, 3), lambda t: t),
        (vae_layers.TimeDownsampleRes2x(32), lambda t: t // 2),
        (vae_layers.SpatialUpsample2x(32), lambda t: t),
        (vae_layers.Downsample(32), lambda t: t),
        (vae_layers.ResnetBlock2D(32, 64), lambda t: t),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
@torch.no_grad()
def test_layers_see_no_later_frame(layer, last) -> None:
    x = noise(1, 32, 9, 6, 6)
    for frame in (0, 4, 6):
        plain, changed = layer(x), layer(change_after(x, frame))
        seen = last(frame) + 1
        torch.testing.assert_close(plain[:, :, :seen], changed[:, :, :seen])
        assert (plain[:, :, seen:] - changed[:, :, seen:]).abs().amax(dim=(0, 1, 3, 4)).min() > 1e-3


@torch.no_grad()
def test_time_upsampling_looks_half_a_step_ahead_but_keeps_the_first_frame_alone() -> None:
    layer, x = vae_layers.TimeUpsampleRes2x(32), noise(1, 32, 5, 4, 4)
    plain = layer(x)
    assert plain.shape[2] == 9
    torch.testing.assert_close(plain[:, :, :1], layer(change_after(x, 0))[:, :, :1])
    torch.testing.assert_close(plain[:, :, :4], layer(change_after(x, 2))[:, :, :4])  # frames of 0, 1, half 2


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (vae_layers.TimeUpsampleRes2x(32), [0, 1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4]),
        (vae_layers.TimeDownsampleRes2x(32), [0, 1, 3]),
    ],
    ids=["up", "down"],
)
@torch.no_grad()
def test_the_part_of_time_layers_that_has_no_weights(layer, expected: list[float]) -> None:
    layer.mix_factor.fill_(100.0)  # the convolution counts nothing
    ramp = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 32, 5, 2, 2)
    torch.testing.assert_close(layer(ramp)[0, 0, :, 0, 0], torch.tensor(expected, dtype=torch.float32))
    layer.mix_factor.fill_(-100.0)  # the convolution counts alone
    assert (layer(ramp)[0, 0, :, 0, 0] - torch.tensor(expected)).abs().max() > 0.1


@torch.no_grad()
def test_attention_stays_inside_a_frame() -> None:
    layer, x = vae_layers.FrameAttention(32), noise(2, 32, 3, 4, 5)
    layer.norm = torch.nn.Identity()  # its statistics are of all frames
    alone = [layer(x[:, :, t : t + 1]) for t in range(3)]
    torch.testing.assert_close(layer(x), torch.cat(alone, dim=2))


@pytest.mark.parametrize(("num_latent", "frames"), [(1, 1), (2, 5), (3, 9)])
@torch.no_grad()
def test_sizes(vae, num_latent: int, frames: int) -> None:
    video = vae.decode(noise(2, 4, num_latent, 3, 4)).sample
    assert video.shape == (2, 3, frames, 24, 32)
    assert vae.encode(video, return_dict=False)[0].mean.shape == (2, 4, num_latent, 3, 4)


@torch.no_grad()
def test_slices_are_the_batch(vae) -> None:
    z = noise(3, 4, 2, 3, 3)
    whole = vae.decode(z).sample
    vae.enable_slicing()
    sliced = vae.decode(z).sample
    vae.disable_slicing()
    torch.testing.assert_close(sliced, whole)


@torch.no_grad()
def test_tiles_are_on_and_used_where_a_video_is_larger_than_one(vae) -> None:
    assert vae.use_tiling
    z = noise(1, 4, 2, 6, 4)
    whole, sizes = vae.decode(z).sample, vars(vae).copy()
    vae.tile_latent_min_size, vae.tile_sample_min_size = 4, 32
    tiled = vae.decode(z).sample
    vae.disable_tiling()
    off = vae.decode(z).sample
    vars(vae).update(sizes)
    assert torch.equal(off, whole)
    assert tiled.shape == whole.shape
    assert not torch.allclose(tiled, whole, atol=1e-2)


def test_half_precision(vae) -> None:
    half = tiny_vae().to(torch.bfloat16)
    with torch.no_grad():
        ours = half.decode(noise(1, 4, 2, 3, 3).bfloat16()).sample
        full = vae.decode(noise(1, 4, 2, 3, 3)).sample
    assert ours.dtype == torch.bfloat16
    assert (ours - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 32, 32), r"frames: given 8, allowed: 4 n \+ 1; nearest: 9"),
        ((1, 3, 6, 32, 32), r"frames: given 6, .* nearest: 5"),
        ((1, 3, 0, 32, 32), r"frames: given 0, .* nearest: 1"),
        ((1, 3, 5, 30, 32), r"height: given 30, allowed: a multiple of 8; nearest: 32"),
        ((1, 3, 5, 32, 3), r"width: given 3, .* nearest: 8"),
        ((1, 4, 5, 32, 32), r"video: given \(1, 4, 5, 32, 32\), allowed: \(B, 3, T, H, W\)"),
        ((3, 5, 32, 32), r"video: given"),
    ],
)
def test_videos_that_latents_cannot_express(vae, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 2, 4, 4), (4, 2, 4, 4)])
def test_latents_of_another_shape(vae, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"latents: given .* allowed: \(B, 4, T, H, W\)"):
        vae.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encoder_attention": "AttnBlock3D"},
            r"config.encoder_attention: given 'AttnBlock3D', allowed: 'AttnB",
        ),
        ({"q_conv": "Conv3d"}, "config.q_conv"),
        ({"hidden_sizes": 32}, "unknown config field 'hidden_sizes'; did you mean hidden_size"),
    ],
)
def test_configs_of_another_autoencoder(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae_arguments(VAE | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encoder_temporal_downsample": ["", "TimeDownsample2x", "TimeDownsampleRes2x", ""]},
            "unknown layer in config.encoder_temporal_downsample 'TimeDownsample2x'; did you mean Time",
        ),
        (
            {"decoder_spatial_upsample": [""]},
            "decoder_spatial_upsample: given 1 names, allowed: 4, one a level",
        ),
        (
            {"decoder_resnet_blocks": ["ResnetBlock"] * 4},
            "unknown layer in config.resnet_blocks 'ResnetBlock'",
        ),
    ],
)
def test_layers_that_are_none(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CausalVideoVAE(**vae_arguments(VAE | change))
