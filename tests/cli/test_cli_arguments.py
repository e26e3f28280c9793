"""How our words become a pipeline's arguments, and texts become values."""

import pytest
from diffusers import CogVideoXPipeline, LattePipeline, WanPipeline

from keystep.cli.method_options import build_method, build_methods, parse_assignments
from keystep.cli.pipeline import check_model, find_call, fit_arguments


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [(LattePipeline, "video_length"), (CogVideoXPipeline, "num_frames"), (WanPipeline, "num_frames")],
)
def test_frames_have_the_name_that_the_pipeline_uses(pipeline, name):
    assert fit_arguments(pipeline.__call__, {"frames": 16, "steps": 5, "height": None}) == {
        name: 16,
        "num_inference_steps": 5,
    }


def test_what_would_vanish_in_keyword_arguments_is_not_taken():
    def call(prompt, **rest):
        del prompt, rest

    with pytest.raises(ValueError, match="--frames"):
        fit_arguments(call, {"frames": 3})


def test_what_is_not_taken_is_refused_with_what_is():
    class Small:
        def __call__(self, prompt, height=1):
            del prompt, height

    with pytest.raises(ValueError, match="--width: .* does not take it; it takes --prompt, --height$"):
        fit_arguments(Small.__call__, {"prompt": "x", "width": 3})


def test_folders_tell_their_pipeline(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "LattePipeline"}')
    check_model(str(tmp_path))
    assert find_call(str(tmp_path)) is LattePipeline.__call__
    assert find_call("someone/something") is None


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
