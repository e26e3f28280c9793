"""Rectified-flow sampling follows straight lines exactly; given frames stay, edited ones join in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from keystep.models.opensora.frame_mask import FrameSchedule
from keystep.models.opensora.scheduler import RectifiedFlowScheduler

IMAGE = {"height": 512, "width": 512, "num_frames": 1}
CLIP = {"height": 240, "width": 426, "num_frames": 51}
SHAPE = (1, 4, 3, 2, 2)


def scheduler_for(steps: int = 30, **size: Any) -> RectifiedFlowScheduler:
    scheduler = RectifiedFlowScheduler()
    scheduler.set_timesteps(steps, **CLIP | size)
    return scheduler


def noises(count: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_a_straight_path_is_followed_exactly(steps: int) -> None:
    scheduler = scheduler_for(steps)
    video, noise = noises(2)
    latents = noise
    for k, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.add_noise(video, noise, timestep)
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
        latents = scheduler.step(video - noise, timestep, latents).prev_sample
        assert scheduler.step_index == k + 1
    torch.testing.assert_close(latents, video, atol=1e-5, rtol=0)


def test_an_image_of_the_base_size_has_even_timesteps() -> None:
    scheduler = scheduler_for(5, **IMAGE)
    assert scheduler.timesteps.tolist() == [1000, 800, 600, 400, 200]
    assert scheduler.sigmas.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])


def test_larger_and_longer_videos_stay_near_the_noise_for_longer() -> None:
    times = [
        scheduler_for(**size).timesteps[1:]
        for size in (IMAGE, IMAGE | {"height": 720}, IMAGE | {"num_frames": 17}, IMAGE | {"num_frames": 34})
    ]
    assert (times[0] < times[1]).all()
    assert (times[0] < times[2]).all()
    assert (times[2] < times[3]).all()


def test_no_timestep_lies_above_noise() -> None:
    # in float32 the first timestep of this size would be 1000.0001, where frames no longer count as noise
    scheduler = scheduler_for(height=80, width=112, num_frames=17)
    assert scheduler.timesteps[0].item() == 1000
    assert FrameSchedule(torch.ones(1, 5), scheduler).active.all()


def test_sizes_are_rounded_to_the_models_type() -> None:
    exact, rounded = (scheduler_for(width=854, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.timesteps.dtype == torch.float32
    assert not torch.equal(exact.timesteps, rounded.timesteps)
    same = [scheduler_for(width=width, dtype=torch.bfloat16).timesteps for width in (854, 856)]
    assert torch.equal(*same)


def test_latents_become_float32() -> None:
    scheduler = scheduler_for()
    latents = torch.zeros(SHAPE, dtype=torch.bfloat16)
    (stepped,) = scheduler.step(latents, scheduler.timesteps[0], latents, return_dict=False)
    assert stepped.dtype == torch.float32


def test_a_run_may_begin_in_the_middle_and_start_again() -> None:
    scheduler = scheduler_for(4)
    ones = torch.ones(SHAPE)
    latents = torch.zeros(SHAPE)
    for timestep in scheduler.timesteps[2:]:
        latents = scheduler.step(ones, timestep, latents).prev_sample
    torch.testing.assert_close(latents, ones * scheduler.sigmas[2])
    with pytest.raises(ValueError, match="step_index: given 4, allowed: 0 to 3; call set_timesteps"):
        scheduler.step(ones, scheduler.timesteps[3], latents)
    scheduler.set_timesteps(4, **CLIP)
    assert scheduler.step_index is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 16}, "num_frames: given 16, allowed: 1 for an image, or 17 or more"),
        ({"height": 0}, "height: given 0, allowed: 1 or more"),
        ({"num_inference_steps": 0}, "num_inference_steps: given 0"),
    ],
)
def test_a_wrong_number_is_named(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RectifiedFlowScheduler().set_timesteps(**{"num_inference_steps": 30} | CLIP | change)


def test_the_size_is_required() -> None:
    with pytest.raises(TypeError, match="'height', 'width', and 'num_frames'"):
        RectifiedFlowScheduler().set_timesteps(30)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("scheduler", [RectifiedFlowScheduler(), scheduler_for()], ids=["not set", "set"])
def test_a_foreign_timestep_is_an_error(scheduler: RectifiedFlowScheduler) -> None:
    with pytest.raises(ValueError, match=r"timestep: given 12\.5, allowed: one of scheduler.timesteps"):
        scheduler.step(torch.zeros(SHAPE), 12.5, torch.zeros(SHAPE))


def test_its_config_is_saved_and_loaded(tmp_path) -> None:
    RectifiedFlowScheduler(base_size=256).save_pretrained(tmp_path)
    loaded = RectifiedFlowScheduler.from_pretrained(tmp_path)
    assert loaded.config["base_size"] == 256
    loaded.set_timesteps(2, height=256, width=256, num_frames=1)
    assert loaded.timesteps.tolist() == [1000, 500]


def test_noise_is_added_by_the_timestep_of_each_row() -> None:
    video, noise = noises(2, (3, *SHAPE[1:]))
    noisy = RectifiedFlowScheduler().add_noise(video, noise, torch.tensor([0.0, 250.0, 1000.0]))
    expected = torch.stack([video[0], 0.75 * video[1] + 0.25 * noise[1], noise[2]])
    torch.testing.assert_close(noisy, expected)


def test_each_frame_joins_when_the_noise_has_fallen_to_its_value() -> None:
    scheduler = scheduler_for()
    schedule = FrameSchedule(torch.tensor([[0.0, 0.3, 1.0], [1.0, 0.95, 0.0]]), scheduler)
    times = scheduler.timesteps.tolist()
    for step, time in enumerate(times):
        assert schedule.active[step].tolist() == [[False, time <= 300, True], [True, time <= 950, False]]
    joining = [max(time for time in times if time <= limit) for limit in (950, 300)]
    needed = [time for time, needs in zip(times, schedule.needs_noise, strict=True) if needs]
    assert needed == joining


def test_joining_frames_are_noised_to_the_level_of_their_step_and_no_others() -> None:
    scheduler = scheduler_for()
    schedule = FrameSchedule(torch.tensor([[0.0, 0.3, 1.0]]), scheduler)
    latents, noise = noises(2)
    for step, needs_noise in enumerate(schedule.needs_noise):
        begun = schedule.begin(step, latents, noise)
        if not needs_noise:
            assert torch.equal(begun, latents)
            continue
        assert torch.equal(begun[:, :, [0, 2]], latents[:, :, [0, 2]])
        level = scheduler.sigmas[step]
        expected = (1 - level) * latents[:, :, 1] + level * noise[:, :, 1]
        torch.testing.assert_close(begun[:, :, 1], expected)


def test_a_run_that_begins_late_noises_edited_frames_at_once() -> None:
    scheduler = scheduler_for()
    scheduler.timesteps = scheduler.timesteps[scheduler.timesteps < 900]
    schedule = FrameSchedule(torch.tensor([[0.95, 1.0]]), scheduler)
    latents, noise = noises(2, (1, 4, 2, 2, 2))
    begun = schedule.begin(0, latents, noise)
    assert schedule.active[0].all()
    assert schedule.needs_noise == [True] + [False] * (len(scheduler.timesteps) - 1)
    assert not torch.equal(begun[:, :, 0], latents[:, :, 0])
    assert torch.equal(begun[:, :, 1], latents[:, :, 1])


def test_a_given_frame_is_kept_bit_by_bit() -> None:
    scheduler = scheduler_for()
    schedule = FrameSchedule(torch.tensor([[0.0, 1.0, 1.0]]), scheduler)
    first, velocity = noises(2)
    velocity[:, :, 0] = torch.nan  # whatever the model says of it
    latents = first
    for step, timestep in enumerate(scheduler.timesteps):
        latents = schedule.begin(step, latents, noises(1)[0])
        masked = schedule.mask_velocity(step, velocity)
        latents = scheduler.step(masked, timestep, latents).prev_sample
    assert torch.equal(latents[:, :, 0], first[:, :, 0])
    torch.testing.assert_close(latents[:, :, 1:], first[:, :, 1:] + velocity[:, :, 1:])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(3), r"mask: given \(3,\), allowed: \(videos, latent frames\)"),
        (torch.tensor([[0.5, 1.5]]), r"mask: given \[0\.5, 1\.5\], allowed: values from 0 to 1"),
        (torch.tensor([[-0.5, 1.0]]), "values from 0 to 1"),
    ],
)
def test_a_wrong_mask_is_named(mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameSchedule(mask, scheduler_for())
