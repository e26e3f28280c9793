import os

import av
import numpy as np
import pytest

from keystep.media import encode_mp4, read_mp4, write_mp4
from keystep.metrics.quality import compute_psnr


def moving_square(height: int = 48, width: int = 64, num_frames: int = 10) -> np.ndarray:
    video = np.full((num_frames, height, width, 3), (0.2, 0.3, 0.6), np.float32)
    for frame in range(num_frames):
        video[frame, 8:32, 4 + 4 * frame : 20 + 4 * frame] = (0.9, 0.7, 0.1)
    return video


def test_what_is_written_is_what_is_read(tmp_path):
    video = moving_square()
    write_mp4(tmp_path / "a.mp4", video, fps=12)
    read, fps = read_mp4(tmp_path / "a.mp4")
    assert read.shape == video.shape
    assert read.dtype == np.float32
    assert fps == 12
    assert compute_psnr(read, video) > 25  # colours have half the resolution


def test_colours_are_exact_away_from_edges(tmp_path):
    write_mp4(tmp_path / "a.mp4", moving_square(), scale=4)
    read, _ = read_mp4(tmp_path / "a.mp4")
    assert np.abs(read[0, 80, 48] - (0.9, 0.7, 0.1)).max() < 0.02
    assert np.abs(read[0, 180, 240] - (0.2, 0.3, 0.6)).max() < 0.02


def test_browsers_can_begin_before_the_end_and_know_the_colours(tmp_path):
    data = encode_mp4(moving_square())
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    (tmp_path / "a.mp4").write_bytes(data)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"
        assert context.colorspace == 1  # BT.709


def test_odd_sides_are_padded_by_repetition(tmp_path):
    video = moving_square(33, 47)
    write_mp4(tmp_path / "a.mp4", video)
    read, _ = read_mp4(tmp_path / "a.mp4")
    assert read.shape[1:3] == (34, 48)
    assert compute_psnr(read[:, :33, :47], video) > 25
    assert np.abs(read[:, 33] - read[:, 32]).max() < 0.1


def test_scale_repeats_pixels(tmp_path):
    write_mp4(tmp_path / "a.mp4", moving_square(16, 16), scale=3)
    assert read_mp4(tmp_path / "a.mp4")[0].shape == (10, 48, 48, 3)


def test_values_out_of_range_are_clipped(tmp_path):
    video = moving_square() * 3 - 1
    video[0, 0, 0] = np.nan
    write_mp4(tmp_path / "a.mp4", video)
    assert compute_psnr(read_mp4(tmp_path / "a.mp4")[0], np.nan_to_num(video).clip(0, 1)) > 20


@pytest.mark.parametrize(
    ("video", "options", "message"),
    [
        (np.zeros((4, 16, 16)), {}, r"not \(4, 16, 16\)"),
        (np.zeros((0, 16, 16, 3)), {}, r"not \(0, 16, 16, 3\)"),
        (np.zeros((4, 16, 16, 3), np.uint8), {}, "uint8"),
        (np.zeros((4, 16, 16, 3)), {"fps": 0}, "fps is 0"),
        (np.zeros((4, 16, 16, 3)), {"crf": 99}, "crf is 99"),
        (np.zeros((4, 16, 16, 3)), {"scale": 0}, "scale is 0"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, video, options, message):
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "sub" / "a.mp4", video, **options)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("keystep.media.mp4._encode", fail)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(path, moving_square())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_what_is_no_video_file_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match="not a readable video"):
        read_mp4(path)
    with pytest.raises(OSError):
        read_mp4(tmp_path / "missing.mp4")


def test_a_file_with_sound_alone_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="holds no video"):
        read_mp4(path)
