import dataclasses

import pytest
import torch

from keystep.models.toy.detector import FIELDS, accuracy, detect
from keystep.models.toy.grammar import Caption, all_captions
from keystep.models.toy.latents import GRID_SIZE, NUM_CHANNELS, scene_maps
from keystep.models.toy.render import render
from keystep.models.toy.scenes import IMAGE_SIZE, NUM_FRAMES, sample_scenes, sample_training_captions


def real_clips(captions, seed=0):
    return render(sample_scenes(captions, torch.Generator().manual_seed(seed))).permute(0, 1, 3, 4, 2)


def test_scenes_are_a_function_of_the_generator():
    captions = all_captions()[::400]
    first, second = (sample_scenes(captions, torch.Generator().manual_seed(3)) for _ in range(2))
    other = sample_scenes(captions, torch.Generator().manual_seed(4))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    assert not torch.equal(first.x_BF, other.x_BF)


def test_training_captions_are_a_function_of_the_generator():
    draw = [sample_training_captions(20, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert draw[0] == draw[1]


def test_shapes_and_ranges():
    scenes = sample_scenes(all_captions()[::50], torch.Generator().manual_seed(0))
    video, maps = render(scenes), scene_maps(scenes)
    num_clips = len(scenes.shape_B)
    assert video.shape == (num_clips, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert video.min() >= 0 and video.max() <= 1
    assert maps.shape == (num_clips, NUM_CHANNELS, NUM_FRAMES, GRID_SIZE, GRID_SIZE)
    assert maps.dtype == torch.float32
    assert maps.abs().max() <= 8


def test_objects_stay_inside_the_picture():
    scenes = sample_scenes(all_captions(), torch.Generator().manual_seed(1))
    for centre_BF in (scenes.x_BF, scenes.y_BF):
        assert (centre_BF - scenes.radius_BF).min() >= 0
        assert (centre_BF + scenes.radius_BF).max() <= IMAGE_SIZE


def test_still_clips_do_not_move_at_all():
    (video,) = real_clips([Caption("large", "red", "cross", "rest", "", "light")])
    assert (video == video[0]).all()


def test_no_caption_is_an_error():
    with pytest.raises(ValueError, match="captions is empty"):
        sample_scenes([], torch.Generator())


def test_detector_reads_real_clips():
    captions = all_captions()[:: len(all_captions()) // 300]
    shares = accuracy(list(real_clips(captions)), captions)
    assert all(shares[field] >= 0.99 for field in FIELDS), shares


def test_detector_reads_the_size_too():
    captions = all_captions()[7::60]
    sizes = [detect(clip).size for clip in real_clips(captions)]
    assert sizes == [caption.size for caption in captions]


def test_detector_is_not_fooled():
    captions = [Caption("large", "red", "cross", "left", "slowly", "light")]
    clip = real_clips(captions)[0]
    assert detect(clip.flip(0)).motion == "right slowly"
    assert detect(clip.flip(-1)).colour != "red"
    assert (
        detect(clip[torch.randperm(NUM_FRAMES, generator=torch.Generator().manual_seed(0))]).motion == "none"
    )
    empty = clip[..., :1].expand(-1, -1, -1, 3)
    assert detect(empty).shape == "none"


def test_detector_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"video has shape \(16, 3, 64, 64\)"):
        detect(torch.zeros(16, 3, 64, 64))
