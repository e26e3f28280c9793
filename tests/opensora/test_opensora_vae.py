import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from keystep.models.opensora import vae_checkpoint
from keystep.models.opensora.temporal_vae import CausalConv3d
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from keystep.models.opensora.vae_checkpoint import load_vae
from tests.parity import opensora_vae as parity
from tests.parity.report import relative_l2

DATA = Path(__file__).parents[1] / "data" / "opensora12"
TINY = {
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "temporal_widths": (8, 8, 16, 16),
    "temporal_layers_per_block": 1,
    "temporal_norm_num_groups": 4,
}


def make(**options) -> AutoencoderKLOpenSora:
    torch.manual_seed(0)
    return AutoencoderKLOpenSora(**(TINY | options)).eval()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLOpenSora:
    return make()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decode(vae: AutoencoderKLOpenSora, latents: torch.Tensor, num_frames: int) -> torch.Tensor:
    return vae.decode(latents, num_frames, return_dict=False)[0]


def encode(vae: AutoencoderKLOpenSora, video: torch.Tensor, seed: int | None = None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return vae.encode(video, return_dict=False, generator=generator)[0]


def test_recorded_reference_runs() -> None:
    results = [
        result
        for folder in (DATA, DATA / "vae_tiny")
        for case in parity.find(folder, "")
        for result in case.results()
    ]
    assert len(results) == 13
    assert [result for result in results if result.status != "ok"] == []


def test_a_changed_recording_fails(tmp_path) -> None:
    for path in (DATA / "vae_tiny").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    weights = load_file(tmp_path / "weights.safetensors")
    weights["temporal_vae.decoder.conv_blocks.1.conv.bias"][0] += 0.1
    save_file(weights, tmp_path / "weights.safetensors")
    released = json.loads((DATA / "vae_v1_2_state_dict.json").read_text())
    released["state_dict"]["scale"]["shape"] = [4]
    released["latent_sizes"]["144p 9:16 2s"]["latent"] = [4, 13, 18, 32]
    released["micro_frame_size"] = 16
    (tmp_path / "vae_state_dict.json").write_text(json.dumps(released))
    results = {r.name: r for case in parity.find(tmp_path, "") for r in case.results()}
    failed = {name for name, result in results.items() if result.status == "FAIL"}
    videos = ("v0_51f", "v1_22f_remainder", "v2_image", "v3_no_micro")
    assert failed == {f"{video} temporal_out" for video in videos} | {
        f"vae_state_dict {what}" for what in ("keys", "latent sizes", "defaults")
    }


@pytest.mark.parametrize("micro_batch_size", [1, 4, None])
def test_every_frame_goes_through_the_2d_autoencoder(micro_batch_size) -> None:
    vae = make(micro_batch_size=micro_batch_size)
    frame_vae, latents, video = vae.spatial_vae, noise(2, 4, 5, 2, 3), noise(2, 3, 5, 16, 24)
    pixels, codes = frame_vae.decode(latents), frame_vae.encode(video, generator=None)
    assert pixels.shape == video.shape
    for frame in range(5):
        expected = frame_vae.module.decode(latents[:, :, frame] / 0.18215).sample
        torch.testing.assert_close(pixels[:, :, frame], expected)
        expected = frame_vae.module.encode(video[:, :, frame]).latent_dist.mode() * 0.18215
        torch.testing.assert_close(codes[:, :, frame], expected)


def test_no_call_sees_more_than_a_chunk(monkeypatch) -> None:
    vae = make()
    seen = {"2D": [], "temporal": []}
    for name, module, axis in (
        ("2D", vae.spatial_vae.module.decoder, 0),
        ("temporal", vae.temporal_vae.decoder, 2),
    ):
        module.register_forward_pre_hook(lambda _, args, n=name, a=axis: seen[n].append(args[0].shape[a]))
    assert decode(vae, noise(1, 4, 12, 1, 1), 40).shape == (1, 3, 40, 8, 8)
    assert seen == {"2D": [4] * 10, "temporal": [5, 5, 2]}


def test_chunks_know_nothing_of_each_other(vae) -> None:
    latents = noise(1, 4, 7, 2, 2)
    video = decode(vae, latents, 22)
    torch.testing.assert_close(decode(vae, latents[:, :, :5], 17), video[:, :, :17])
    torch.testing.assert_close(decode(vae, latents[:, :, 5:], 5), video[:, :, 17:])
    codes = encode(vae, video)
    torch.testing.assert_close(encode(vae, video[:, :, :17]).mean, codes.mean[:, :, :5])
    torch.testing.assert_close(encode(vae, video[:, :, 17:]).logvar, codes.logvar[:, :, 5:])


def test_a_causal_convolution_sees_no_later_frame() -> None:
    convolution, x = CausalConv3d(2, 2, 3), noise(1, 2, 6, 3, 3)
    later = x.clone()
    later[:, :, 4:] += 1
    same = (convolution(x) == convolution(later)).all(dim=(0, 1, 3, 4))
    assert same.tolist() == [True] * 4 + [False] * 2


def test_posterior_is_the_normalised_one() -> None:
    plain = make(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    normalised = make(latents_mean=[0.5] * 4, latents_std=[2.0] * 4)
    video = noise(1, 3, 5, 8, 8)
    raw, ours = encode(plain, video), encode(normalised, video)
    torch.testing.assert_close(ours.mean, (raw.mean - 0.5) / 2)
    torch.testing.assert_close(ours.std, raw.std / 2)
    torch.testing.assert_close(decode(normalised, ours.mean, 5), decode(plain, raw.mean, 5))


def test_outputs_as_diffusers_has_them(vae) -> None:
    latents = noise(1, 4, 2, 1, 1)
    video = vae.decode(latents, 6).sample
    assert torch.equal(video, decode(vae, latents, 6))
    assert torch.equal(vae.encode(video).latent_dist.mode(), encode(vae, video).mode())


def test_generator_draws_the_frame_latents(vae) -> None:
    video = noise(1, 3, 5, 8, 8)
    drawn = [encode(vae, video, seed).mean for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], encode(vae, video).mean)


def test_slicing_changes_nothing() -> None:
    vae, latents = make(), noise(3, 4, 2, 2, 2)
    video = decode(vae, latents, 6)
    codes = encode(vae, video).parameters
    batches = []
    vae.temporal_vae.decoder.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    vae.enable_slicing()
    torch.testing.assert_close(decode(vae, latents, 6), video)
    torch.testing.assert_close(encode(vae, video).parameters, codes)
    vae.disable_slicing()
    torch.testing.assert_close(decode(vae, latents, 6), video)
    assert batches == [1, 1, 1, 3]


def test_tiling_cuts_large_frames_alone() -> None:
    vae, latents = make(), noise(1, 4, 1, 12, 12)
    whole = decode(vae, latents, 1)
    sides = []
    vae.spatial_vae.module.decoder.register_forward_pre_hook(lambda _, args: sides.append(args[0].shape[-1]))
    vae.enable_tiling(96)
    assert torch.equal(decode(vae, latents, 1), whole)
    vae.enable_tiling(64)
    assert decode(vae, latents, 1).shape == whole.shape
    assert sides == [12] + [8, 6] * 2
    assert encode(vae, whole).mean.shape == latents.shape
    vae.disable_tiling()
    assert torch.equal(decode(vae, latents, 1), whole)
    with pytest.raises(ValueError, match="tile_size: given 100, allowed: a multiple of 32"):
        vae.enable_tiling(100)


@pytest.mark.parametrize("micro_frame_size", [17, 16, 3, 1, None])
def test_possible_lengths_are_those_with_these_latents(micro_frame_size) -> None:
    with torch.device("meta"):
        vae = make(micro_frame_size=micro_frame_size)
    for latent_frames in range(1, 12):
        expected = [n for n in range(1, 60) if vae.get_latent_size((n, 8, 8))[0] == latent_frames]
        assert list(vae.possible_num_frames(latent_frames)) == expected


def test_sizes(vae) -> None:
    assert vae.patch_size == (4, 8, 8)
    assert vae.get_latent_size((51, 480, 854)) == (15, 60, 106)
    assert list(vae.possible_num_frames(2)) == [5, 6, 7, 8]
    assert list(vae.possible_num_frames(15)) == [51]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda v: v.decode(noise(1, 4, 15, 2, 2), 50),
            "num_frames: given 50, allowed: 51 for latents",
        ),
        (
            lambda v: v.decode(noise(1, 4, 2, 2, 2), 9),
            "num_frames: given 9, allowed: 5 to 8 for lat",
        ),
        (
            lambda v: v.decode(noise(1, 3, 2, 2, 2), 8),
            r"latents: given \(1, 3, 2, 2, 2\), allowed: \(ba",
        ),
        (lambda v: v.decode(noise(4, 2, 2, 2), 8), "latents: given"),
        (lambda v: v.decode(noise(1, 4, 0, 2, 2), 1), "latent_frames: given 0, allowed: at least 1"),
        (lambda v: v.encode(noise(1, 4, 2, 8, 8)), "video: given"),
        (lambda v: v.encode(noise(1, 3, 2, 7, 8)), "height: given 7, allowed: at least 8"),
        (lambda v: v.get_latent_size((0, 8, 8)), "num_frames: given 0, allowed: at least 1"),
        (lambda v: make(temporal_downsample=[True]), "temporal_downsample: .*3 values"),
        (lambda v: make(latents_std=[1.0]), "latents_std: .*4 values"),
        (lambda v: make(micro_frame_size=0), "micro_frame_size: given 0"),
    ],
)
def test_bad_input(vae, monkeypatch, call, message) -> None:
    monkeypatch.setattr(vae.spatial_vae, "encode", None)  # nothing may be computed before the error
    monkeypatch.setattr(vae.temporal_vae, "decode", None)
    with pytest.raises(ValueError, match=message):
        call(vae)


def test_saved_and_loaded(vae, tmp_path) -> None:
    vae.save_pretrained(tmp_path)
    latents = noise(1, 4, 2, 2, 2)
    loaded = AutoencoderKLOpenSora.from_pretrained(tmp_path)
    assert torch.equal(decode(loaded, latents, 8), decode(vae, latents, 8))
    loaded = AutoencoderKLOpenSora.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    video = decode(loaded, latents.bfloat16(), 8)
    assert video.dtype == torch.bfloat16
    assert relative_l2(video, decode(vae, latents, 8)) < 0.1


@pytest.fixture
def released(vae, tmp_path, monkeypatch) -> Path:
    """A folder like the released one, of a tiny autoencoder."""
    arguments = vae_checkpoint.vae_arguments
    monkeypatch.setattr(vae_checkpoint, "vae_arguments", lambda config: TINY | arguments(config))
    save_file(vae.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architectures": ["VideoAutoencoderPipeline"],
        "micro_frame_size": 9,
        "shift": [0.0, 0.1, 0.2, 0.3],
        "scale": [1.0, 2.0, 3.0, 4.0],
        "vae_2d": {"type": "VideoAutoencoderKL", "micro_batch_size": 2},
        "vae_temporal": {"type": "VAE_Temporal_SD", "from_pretrained": None},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_released_folder(vae, released) -> None:
    loaded = load_vae(released)
    config = loaded.config
    assert (config["micro_frame_size"], config["micro_batch_size"]) == (9, 2)
    assert config["latents_mean"] == [0.0, 0.1, 0.2, 0.3]
    assert torch.equal(loaded.scale, vae.scale)  # those of the weights count
    assert not loaded.training
    latents = noise(1, 4, 3, 2, 2)
    assert torch.equal(decode(loaded, latents, 9), decode(make(micro_frame_size=9), latents, 9))
    assert load_vae(released, torch.bfloat16).dtype == torch.bfloat16


def test_released_folder_without_config(vae, released) -> None:
    (released / "config.json").unlink()
    latents = noise(1, 4, 7, 2, 2)
    assert torch.equal(decode(load_vae(released), latents, 22), decode(vae, latents, 22))


def test_released_keys_must_fit(vae, released) -> None:
    state = vae.state_dict()
    del state["scale"]
    save_file(state | {"extra": torch.zeros(1)}, released / "model.safetensors")
    with pytest.raises(ValueError, match="1 missing: scale; 1 extra: extra"):
        load_vae(released)


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("module.encoder.down_blocks.0.resnets.0.conv1.weight", "1.0 and 1.1"),
        ("encoder.down.0.block.0.conv1.conv.weight", "1.3"),
        ("encoder.down_blocks.0.resnets.0.conv1.conv.weight", "2.0"),
        ("encoder.stages.0.op_list.0.main.conv1.conv.weight", "DC-AE"),
    ],
)
def test_another_versions_autoencoder_is_named(released, key, version) -> None:
    save_file({key: torch.zeros(1)}, released / "model.safetensors")
    with pytest.raises(ValueError, match=rf"given .*{version}.*, allowed: the autoencoder of Open-Sora 1\.2"):
        load_vae(released)
