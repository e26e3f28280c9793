"""Models by name: what is found before anything is loaded, and what loading is told."""

import json

import pytest
import torch

import keystep
from keystep.models.catalogue import CATALOGUE, find_model, find_pipeline, import_name
from keystep.models.registry import SPECS
from keystep.models.toy import ToyPipeline


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_name_has_a_pipeline_and_a_spec(name):
    entry = CATALOGUE[name]
    pipeline = find_pipeline(name)
    assert pipeline is import_name(entry.pipeline)
    assert callable(pipeline.from_pretrained)
    assert entry.spec in SPECS


def test_released_checkpoints_find_their_class_by_hub_id():
    assert find_model("hpcai-tech/OpenSora-STDiT-v3") is CATALOGUE["opensora-1.2"]
    assert find_model("someone/something") is None
    assert find_model("") is None  # what ships with keystep has no hub id


def write_index(folder, name):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return str(folder)


def test_folders_of_our_own_pipelines_are_loaded_with_them(tmp_path, monkeypatch):
    seen = {}

    class Loaded:
        def to(self, device):
            return device

    def from_pretrained(place, **options):
        seen.update(place=place, **options)
        return Loaded()

    folder = write_index(tmp_path, "ToyPipeline")  # diffusers knows no such class
    monkeypatch.setattr(ToyPipeline, "from_pretrained", from_pretrained)
    assert keystep.load(folder, device="cpu", text_encoder="t5") == "cpu"
    assert seen == {"place": folder, "text_encoder": "t5"}
    assert keystep.load("toy", source="/data/toy", dtype="half") == "cpu"
    assert seen == {"place": "/data/toy", "dtype": torch.half, "text_encoder": "t5"}


def test_a_saved_toy_loads_from_its_folder(tmp_path):
    saved = keystep.load("toy")
    saved.save_pretrained(tmp_path)
    pipe = keystep.load(str(tmp_path))
    assert type(pipe) is ToyPipeline
    assert torch.equal(pipe.transformer.proj_out.weight, saved.transformer.proj_out.weight)


@pytest.mark.parametrize("is_saved", [True, False])
def test_offloading_leaves_the_parts_where_they_are(tmp_path, is_saved):
    """Each part has diffusers' hook that moves it, and nothing was moved at once; the result is the same."""
    if is_saved:
        keystep.load("toy").save_pretrained(tmp_path)
    pipe = keystep.load(str(tmp_path) if is_saved else "toy", offload=True)
    hooked = {name for name, part in pipe.components.items() if hasattr(part, "_hf_hook")}
    assert {"transformer", "text_encoder"} <= hooked
    call = {"num_inference_steps": 4, "output_type": "latent"}
    latents = [
        each("a red circle moving right", generator=torch.Generator().manual_seed(0), **call).frames
        for each in (pipe, keystep.load("toy"))
    ]
    assert torch.equal(*latents)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "opensora"}, "unknown model 'opensora'; did you mean opensora-1.2"),
        ({"model": "someone/something", "source": "/data"}, "source: goes with a model's name"),
        ({"model": "toy", "dtype": "float33"}, "dtype: given 'float33', allowed: None, a torch dtype"),
        ({"model": "toy", "dtype": "nn"}, "dtype: given 'nn'"),
        ({"model": "toy", "device": "nowhere"}, "device: given 'nowhere', which cannot be used here"),
        ({"model": "toy", "vae": "/data"}, "'toy' ships with keystep and takes no vae"),
        ({"model": "latte", "source": "/no/such/folder"}, "cannot be loaded from '/no/such/folder'"),
    ],
)
def test_what_cannot_be_loaded_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        keystep.load(**arguments)


def test_a_broken_index_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(ValueError, match="describes no diffusers pipeline"):
        find_pipeline(str(tmp_path))
