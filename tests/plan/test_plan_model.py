"""Figures of released models, against those that are known from their code and papers."""

from dataclasses import replace

import pytest
import torch

from keystep.models.catalogue import CATALOGUE
from keystep.models.registry import SPECS
from keystep.plan import BLUEPRINTS, Video, Workload, plan_model


def workload(name, video=None, num_steps=0, **options):
    blueprint = BLUEPRINTS[name]
    spec = SPECS[CATALOGUE[name].spec]
    return Workload(blueprint, spec, video or blueprint.video, num_steps or blueprint.num_steps, **options)


# Values in the denoiser: the Open-Sora models' state dicts, the model cards' sizes of the others.
PARAMETERS = {
    "opensora-1.2": 1_208_872_772,
    "opensora-plan-1.1": 1_057_246_880,
    "latte": 1_057_246_880,  # the same but for the length of one table that is not stored
    "cogvideox-2b": pytest.approx(1.69e9, rel=0.03),
    "cogvideox-5b": pytest.approx(5.57e9, rel=0.01),
    "wan-2.1-1.3b": pytest.approx(1.42e9, rel=0.01),
    "wan-2.1-14b": pytest.approx(14.29e9, rel=0.01),
}
# (latent frames, tokens of one) at the default size
TOKENS = {
    "opensora-1.2": (15, 30 * 53),
    "opensora-plan-1.1": (17, 32 * 32),
    "vchitect-2.0": (40, 27 * 48),
    "latte": (16, 32 * 32),
    "cogvideox-2b": (13, 30 * 45),  # with 226 of text 17 776
    "cogvideox-5b": (13, 30 * 45),
    "wan-2.1-1.3b": (21, 30 * 52),
    "wan-2.1-14b": (21, 45 * 80),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_configs_are_those_of_the_released_weights(name):
    state = workload(name).build().state_dict()
    assert sum(value.numel() for value in state.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_at_the_default_size(name):
    plan = plan_model(shallow(workload(name)))  # the first block sees them
    assert (plan.num_latent_frames, plan.tokens_per_frame) == TOKENS[name]


def test_one_evaluation_of_a_whole_model():
    """720p: 54 000 tokens; FLOPs from the widths of STDiT3-XL/2, C = 1152, by hand."""
    plan = plan_model(workload("opensora-1.2", Video(720, 1280, 51)))
    tokens, frames, width, text = 54_000, 15, 1152, 300
    assert plan.num_tokens == tokens
    assert plan.weight_bytes == 2 * plan.num_parameters == 2 * 1_208_872_772
    # per token: qkv, projections of both attentions and the MLP; per text token: keys and values
    linear = tokens * (3 + 1 + 2 + 8) * width**2 + text * 2 * width**2
    scores = {"spatial": tokens * tokens // frames, "temporal": tokens * frames, "text": 2 * tokens * text}
    blocks = 28 * (2 * linear + 2 * width * sum(scores.values()))
    assert plan.cost.flops == pytest.approx(2 * 2 * blocks, rel=2e-3)  # both branches; multiply and add
    hidden_state = 2 * tokens * width * 2
    assert 4 * hidden_state < plan.activation_bytes < 20 * hidden_state  # the MLP alone holds 4 and more


def test_a_batch_costs_so_many_times_more():
    one, three = (plan_model(shallow(workload("latte", batch=batch))) for batch in (1, 3))
    assert three.cost.flops == pytest.approx(3 * one.cost.flops, rel=1e-3)
    assert three.activation_bytes == pytest.approx(3 * one.activation_bytes, rel=1e-2)
    assert three.weight_bytes == one.weight_bytes
    assert three.num_tokens == one.num_tokens


def test_parts_that_stay_in_float32_count_as_such():
    transformer = workload("wan-2.1-1.3b").build(depth=1)
    dtypes = {name: value.dtype for name, value in transformer.named_parameters()}
    assert dtypes["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert dtypes["blocks.0.scale_shift_table"] == torch.float32


@pytest.mark.parametrize(
    ("name", "video", "words"),
    [
        ("cogvideox-2b", Video(480, 720, 48), "frames: given 48, allowed: 4 n \\+ 1; nearest: 45 and 49"),
        ("latte", Video(512, 512, 17), "frames: given 17, allowed: 16"),
        ("opensora-plan-1.1", Video(512, 512, 51), "frames: given 51, allowed: 65 or 221"),
        ("wan-2.1-14b", Video(720, 1288, 81), "width: given 1288"),
        ("opensora-1.2", Video(4, 854, 51), "height: given 4"),
    ],
)
def test_sizes_that_a_model_cannot_make(name, video, words):
    with pytest.raises(ValueError, match=words):
        workload(name, video)


def shallow(job: Workload) -> Workload:
    """The same with two blocks."""
    blueprint = replace(job.blueprint, config={**job.blueprint.config, job.blueprint.depth: 2})
    return replace(job, blueprint=blueprint)
