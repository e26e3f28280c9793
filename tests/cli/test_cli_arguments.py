"""How our words become a pipeline's arguments, and texts become values."""

import pytest
from diffusers import CogVideoXPipeline, LattePipeline, WanPipeline

from keystep.cli.method_options import build_method, build_methods, parse_assignments
from keystep.cli.pipeline import check_model, choose_fps, fit_arguments, read_load_options
from keystep.models.catalogue import find_pipeline


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [(LattePipeline, "video_length"), (CogVideoXPipeline, "num_frames"), (WanPipeline, "num_frames")],
)
def test_frames_have_the_name_that_the_pipeline_uses(pipeline, name):
    assert fit_arguments(pipeline, {"frames": 16, "steps": 5, "height": None}) == {
        name: 16,
        "num_inference_steps": 5,
    }


def test_what_would_vanish_in_keyword_arguments_is_not_taken():
    class Loose:
        def __call__(self, prompt, **rest):
            del prompt, rest

    with pytest.raises(ValueError, match="--frames"):
        fit_arguments(Loose, {"frames": 3})


def test_what_is_not_taken_is_refused_with_what_is():
    class Small:
        def __call__(self, prompt, height=1):
            del prompt, height

    with pytest.raises(ValueError, match="--width: .* does not take it; it takes --prompt, --height$"):
        fit_arguments(Small, {"prompt": "x", "width": 3})


def test_folders_tell_their_pipeline(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "LattePipeline"}')
    check_model(str(tmp_path))
    assert find_pipeline(str(tmp_path)) is LattePipeline
    assert find_pipeline("someone/something") is None


class Sized:
    """A pipeline with named sizes."""

    def __call__(self, prompt, num_frames=1, height=1, width=1):
        del prompt, num_frames, height, width

    @staticmethod
    def size_arguments(
        *, resolution=None, aspect=None, seconds=None, num_frames=None, height=None, width=None
    ):
        assert (aspect, num_frames, height, width) == (None,) * 4
        return {"height": int(resolution[:-1]), "width": 9, "num_frames": round(8 * (seconds or 1))}


def test_named_sizes_become_the_arguments_of_the_call():
    given = {"prompt": "x", "resolution": "720p", "seconds": 2.0, "frames": None, "steps": None}
    assert fit_arguments(Sized, given) == {"prompt": "x", "height": 720, "width": 9, "num_frames": 16}
    assert fit_arguments(Sized, {"prompt": "x"}) == {"prompt": "x"}  # the pipeline's own default stays


def test_named_sizes_of_a_pipeline_without_any_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="--seconds: WanPipeline has no named sizes; give --height, --width"):
        fit_arguments(WanPipeline, {"seconds": 2.0, "height": 480})


def test_loading_options_are_those_of_the_model():
    given = ["source=/data/latte", "variant=fp16"]
    assert read_load_options("latte", given) == {"source": "/data/latte", "variant": "fp16"}
    assert read_load_options("latte", []) == {}
    with pytest.raises(ValueError, match="unknown --load option of latte 'vae'.*known: revision, source"):
        read_load_options("latte", ["vae=/data/vae"])
    with pytest.raises(ValueError, match="'source'"):  # what has a place already
        read_load_options("someone/something", ["source=/data"])
    with pytest.raises(ValueError, match="--load: given 'vae', allowed: key=value"):
        read_load_options("latte", ["vae"])


def test_native_pipelines_name_their_loading_options():
    given = ["vae=/data/vae", "text_encoder=/data/t5"]
    assert read_load_options("opensora-1.2", given) == {"vae": "/data/vae", "text_encoder": "/data/t5"}
    with pytest.raises(ValueError, match="did you mean vae"):
        read_load_options("opensora-1.2", ["vea=/data/vae"])
    with pytest.raises(ValueError, match="'dtype'"):  # --dtype says it
        read_load_options("opensora-1.2", ["dtype=float16"])


def test_every_pipeline_names_its_parts():
    assert read_load_options("vchitect-2.0", ["text_encoder_3=/data/t5"]) == {"text_encoder_3": "/data/t5"}
    with pytest.raises(ValueError, match="unknown --load option of vchitect-2.0 'variant'"):
        read_load_options("vchitect-2.0", ["variant=fp16"])


def test_the_checkpoint_is_of_the_length_of_the_video(tmp_path):
    model = "opensora-plan-1.1"
    for words in ({"seconds": 9.2}, {"frames": 221}):
        assert read_load_options(model, [], words) == {"size": "221x512x512"}
        assert read_load_options(model, ["size=221x512x512"], words) == {"size": "221x512x512"}
        with pytest.raises(ValueError, match="size: given '65x512x512', allowed: '221x512x512' for 221 fr"):
            read_load_options(model, ["size=65x512x512"], words)
    assert read_load_options(model, [], {"frames": None, "prompt": "x"}) == {}
    (tmp_path / "model_index.json").write_text('{"_class_name": "OpenSoraPlanPipeline"}')
    saved = {"source": str(tmp_path)}
    assert read_load_options(model, [f"source={tmp_path}"], {"frames": 221}) == saved
    assert read_load_options(str(tmp_path), [], {"frames": 221}) == {}


def test_files_have_the_frame_rate_of_the_model():
    assert choose_fps("opensora-1.2", None) == 24
    assert choose_fps("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", None) == 16
    assert choose_fps("someone/something", None) == 8
    assert choose_fps("opensora-1.2", 12.5) == 12.5


def test_values_are_read_as_what_they_look_like():
    texts = ["a=1", "b=1e-3", "c=true", "d=None", "e=slow", 'f={"0.1": 2}', "g=[1, 2]", "h=x=y", "i="]
    values = [1, 0.001, True, None, "slow", {"0.1": 2}, [1, 2], "x=y", ""]
    assert parse_assignments(texts) == dict(zip("abcdefghi", values, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", 'method = "adacache"\ncodebook = "slow"\n'),
        ("p.yaml", "method: adacache\ncodebook: slow\n"),
        ("p.yml", "{method: adacache, codebook: slow}"),
        ("p.json", '{"method": "adacache", "codebook": "slow"}'),
    ],
)
def test_policy_files_of_every_format_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    built = build_method(None, [], tmp_path / name)
    assert built == build_method("adacache", ["codebook=slow"], None)
    overridden = build_method(None, ["codebook=fast-100"], tmp_path / name)
    assert overridden == build_method("adacache", ["codebook=fast-100"], None)


@pytest.mark.parametrize("name", ["none", "plain"])
def test_plain_is_no_method(name):
    assert build_method(name, [], None) is None


def test_policies_are_compared_under_their_stem(tmp_path):
    (tmp_path / "mine.toml").write_text('method = "fastercache"\ncfg = false\n')
    methods = build_methods("adacache, fastercache", [tmp_path / "mine.toml"])
    assert list(methods) == ["adacache", "fastercache", "mine"]
    assert methods["mine"] == build_method("fastercache", ["cfg=false"], None)
    with pytest.raises(ValueError, match="'mine' is given twice"):
        build_methods("", [tmp_path / "mine.toml", tmp_path / "mine.toml"])
