"""Bad input: one line on stderr that names field, value and what is allowed; nothing is loaded."""

import os

import pytest

from tests.cli.conftest import PROMPT


@pytest.fixture
def generate(run, no_load, tmp_path):
    def call(*extra, method="adacache", out=None, model="toy"):
        arguments = ["generate", "--model", model, "--prompt", PROMPT, "--out", out or tmp_path / "a.mp4"]
        return run(*arguments, *(["--method", method] if method else []), *extra)

    return call


def expect(result, *words):
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err


def test_unknown_method(generate):
    expect(generate(method="adacach"), "'adacach'", "did you mean adacache", "fastercache")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("dept=0.5", ["'dept'", "did you mean depth"]),
        ("depth=3", ["depth", "3"]),
        ("depth=deep", ["depth", "'deep'"]),
        ("depth", ["--set", "'depth'", "key=value"]),
        ("=1", ["--set", "'=1'"]),
    ],
)
def test_wrong_option(generate, assignment, words):
    expect(generate("--set", assignment), *words)


def test_option_given_twice(generate):
    expect(generate("--set", "depth=0.1", "--set", "depth=0.2"), "--set", "'depth'", "twice")


def test_method_missing_or_double(generate, tmp_path):
    expect(generate(method=None), "--method", "--policy", "keystep methods")
    expect(generate("--policy", tmp_path / "p.toml"), "give one of them")


def test_plain_takes_no_options(generate):
    expect(generate("--set", "depth=1", method="none"), "'none'", "depth")


def test_plain_has_no_trace(generate, tmp_path):
    expect(generate("--trace", tmp_path / "t.json", method="plain"), "--trace")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("tooy", ["'tooy'", "did you mean toy?"]),
        ("a/b/c", ["'a/b/c'", "hub id"]),
    ],
)
def test_unknown_model(generate, model, words):
    expect(generate(model=model), "--model", *words)


def test_a_folder_that_is_no_pipeline(generate, tmp_path):
    expect(generate(model=str(tmp_path)), "--model", "model_index.json")


def test_arguments_the_pipeline_does_not_take(generate):
    expect(generate("--width", "64"), "--width", "ToyPipeline", "--steps")


def test_a_folder_is_judged_by_its_pipeline_class_before_loading(generate, tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    expect(generate("--frames", "16", model=str(tmp_path)), "--frames", "PixArtAlphaPipeline", "--height")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], ["--steps", "0"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--guidance", "-2"], ["--guidance", "-2"]),
        (["--fps", "0"], ["--fps", "0"]),
        (["--dtype", "float8"], ["--dtype", "float8", "bfloat16"]),
        (["--device", "abacus"], ["--device", "'abacus'", "cpu"]),
        (["--stepz", "3"], ["--stepz", "--steps"]),
    ],
)
def test_numbers_and_names_out_of_range(generate, arguments, words):
    expect(generate(*arguments), *words)


def test_missing_arguments_are_named(run):
    expect(run("generate", "--model", "toy"), "--prompt")


def test_places_that_cannot_be_written(generate, tmp_path):
    expect(generate(out=tmp_path / "a.avi"), "--out", "a.avi", ".mp4")
    (tmp_path / "b.mp4").mkdir()
    expect(generate(out=tmp_path / "b.mp4"), "b.mp4", "is a folder")
    (tmp_path / "file").write_text("")
    expect(generate(out=tmp_path / "file" / "a.mp4"), "is not a folder")
    expect(generate("--trace", tmp_path), "is a folder")
    assert sorted(os.listdir(tmp_path)) == ["b.mp4", "file"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.toml", 'method = "adacache"\nspeed = 3', ["'speed'", "option of adacache"]),
        ("p.toml", "method = ", ["p.toml", "broken"]),
        ("p.toml", "depth = 0.5", ["p.toml", "names no method"]),
        ("p.yaml", "method: [", ["p.yaml", "broken"]),
        ("p.yml", "- method", ["p.yml", "names no method"]),
        ("p.json", '{"method": "adacach"}', ["'adacach'", "did you mean"]),
        ("p.json", '{"method"', ["p.json", "broken"]),
        ("p.txt", "method", ["p.txt", ".toml"]),
    ],
)
def test_wrong_policy_file(generate, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    expect(generate("--policy", tmp_path / name, method=None), *words)


def test_missing_policy_file(generate, tmp_path):
    expect(generate("--policy", tmp_path / "p.toml", method=None), "--policy", "p.toml", "cannot be read")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "adacache,plain"], ["--methods", "'plain'"]),
        (["--methods", "adacache,adacache"], ["'adacache'", "twice"]),
        (["--methods", " , "], ["--methods", "at least one"]),
        (["--methods", "adacach"], ["did you mean adacache"]),
        (["--methods", "adacache", "--seeds", "1,x"], ["--seeds", "'1,x'"]),
        (["--methods", "adacache", "--seeds", "1,1"], ["--seeds", "'1,1'"]),
        (["--methods", "adacache", "--height", "64"], ["--height", "ToyPipeline"]),
        (["--methods", "adacache", "--pairs", "-1"], ["--pairs"]),
    ],
)
def test_comparisons_are_checked_before_loading(run, no_load, tmp_path, arguments, words):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPT)
    expect(
        run("compare", "--model", "toy", "--prompts", prompts, "--out", tmp_path / "out", *arguments), *words
    )
    assert os.listdir(tmp_path) == ["prompts.txt"]


@pytest.mark.parametrize(
    ("text", "word"), [("# none\n\n", "no prompt"), ("a\nb\na\n", "'a' twice"), (None, "cannot be read")]
)
def test_prompt_files(run, no_load, tmp_path, text, word):
    path = tmp_path / "prompts.txt"
    if text is not None:
        path.write_text(text)
    result = run(
        "compare", "--model", "toy", "--methods", "adacache", "--prompts", path, "--out", tmp_path / "o"
    )
    expect(result, "--prompts", "prompts.txt", word)


def test_demo_checks_its_folder(run, no_load, tmp_path):
    (tmp_path / "file").write_text("")
    expect(run("demo", "--out", tmp_path / "file"), "is a file")


def test_an_unknown_method_has_no_page(run):
    expect(run("methods", "adacach"), "did you mean adacache")


@pytest.fixture
def failing(monkeypatch):
    def arrange(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("keystep.cli.console.print_table", fail)

    return arrange


def test_errors_of_ours_have_status_one_and_offer_the_traceback(run, failing):
    failing(RuntimeError("odd\nthing"))
    result = run("models")
    assert result.status == 1
    assert result.err == "error: RuntimeError: odd thing (add --debug for the traceback)\n"


def test_debug_shows_the_traceback_wherever_it_stands(run, failing):
    failing(ValueError("bad"))
    for arguments in (["--debug", "models"], ["models", "--debug"]):
        result = run(*arguments)
        assert result.status == 2
        assert "Traceback" in result.err
        assert result.err.endswith("error: bad\n")
    assert "Traceback" not in run("models").err


def test_markup_in_messages_is_shown_as_it_is(run, failing):
    failing(ValueError("sites: attn[0], [bold]"))
    assert run("models").err == "error: sites: attn[0], [bold]\n"


def test_an_interrupt_is_no_traceback(run, failing):
    failing(KeyboardInterrupt())
    result = run("models")
    assert result.status == 130
    assert result.err.strip() == "error: interrupted"


def test_a_broken_pipeline_folder_is_named(run, tmp_path) -> None:
    (tmp_path / "model_index.json").write_text("hi")
    result = run(
        "generate", "--model", tmp_path, "--method", "none", "--prompt", PROMPT, "--out", tmp_path / "a.mp4"
    )
    assert result.status == 2
    assert "describes no diffusers pipeline" in result.err.replace("\n", " ")
    assert not (tmp_path / "a.mp4").exists()
