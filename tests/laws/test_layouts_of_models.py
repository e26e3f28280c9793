"""What families of models need of the engine, each by itself: guidance seen in the calls, copied schedulers,
spans without an exit, packed latents, outputs of several tensors, calls beyond guidance.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import keystep
from keystep import FasterCache, Policy, Rule
from keystep.how import Hold
from keystep.models.cosmos import COSMOS
from keystep.models.kandinsky import KANDINSKY5
from keystep.models.ltx import LTX, LTX2
from keystep.models.mochi import MOCHI
from keystep.what import Output, Span
from keystep.when import Every
from tests.families import audio, batched, hunyuan_like, separate, wan_like
from tests.families.parts import Family
from tests.matrix import decisions

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
FAMILIES = {
    family.name: family
    for module in (wan_like, hunyuan_like, batched, separate, audio)
    for family in module.FAMILIES
}
HOLD = Policy((Rule(Span(), Every(3, start=3), Hold()),), "hold")


def run(family: Family, method: Any, **options: Any) -> tuple[torch.Tensor, keystep.Trace]:
    pipe = family.build()
    sample = {name: options.pop(name) for name in ("is_guided",) if name in options}
    with keystep.accelerate(pipe, method, **options) as session:
        latents = family.sample(pipe, **sample)
    assert session.trace is not None
    return latents, session.trace


@pytest.mark.parametrize("name", ["hunyuan", "motif"])
def test_guidance_is_seen_in_the_calls(name: str) -> None:
    """An embedded scale is no guidance; a run that finds this out goes on as one that was told."""
    family = FAMILIES[name]
    _, guided = run(family, FasterCache())
    latents, unguided = run(family, FasterCache(), is_guided=False)
    assert guided.guided and guided.count_skips("branch[uncond]") > 0
    assert not unguided.guided and "branch[uncond]" not in unguided.rows[0].decisions
    assert "guidance is off: branch[uncond] stands aside" in unguided.notes
    told, trace = run(family, FasterCache(cfg=False), is_guided=False)
    assert torch.equal(latents, told) and decisions(unguided) == decisions(trace)
    assert unguided.hidden_state_bytes * 2 == guided.hidden_state_bytes


def test_copies_of_a_followed_scheduler_step_by_themselves() -> None:
    pipe = FAMILIES["skyreels-v2-forcing"].build()
    with keystep.accelerate(pipe, HOLD) as session:
        pipe.scheduler.set_timesteps(5)
        other = copy.deepcopy(pipe.scheduler)
        other.set_timesteps(3)
        assert (len(pipe.scheduler.timesteps), len(other.timesteps)) == (5, 3)
        x = torch.ones(1, 2)
        other.step(x, other.timesteps[0], x)
        assert (pipe.scheduler.step_index, other.step_index) == (None, 1)
        assert session.run is None, "no model was called"
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize(("name", "spec"), [("mochi", MOCHI), ("cosmos", COSMOS)])
def test_a_span_is_left_behind_its_last_block_or_at_the_exit_alike(name: str, spec: Any) -> None:
    at_exit, _ = run(FAMILIES[name], HOLD)
    behind, trace = run(FAMILIES[name], HOLD, spec=replace(spec, exit=""))
    assert torch.equal(at_exit, behind) and trace.count_skips("span") > 3


@pytest.mark.parametrize(("spec", "shape"), [(LTX, (2, 24, 5)), (KANDINSKY5, (2, 2, 3, 4, 5))])
def test_latents_of_every_layout_are_split_along_height_and_width(spec: Any, shape: tuple[int, ...]) -> None:
    """(B, N, C) and (B, T, H, W, C): the last two axes are H = 3 and W = 4, and the way back is exact."""
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    frames = spec.to_frames(output, {"num_frames": 2, "height": 3, "width": 4})
    assert frames.shape[-2:] == (3, 4)
    assert torch.equal(frames[1, 1, :, 2, 3], output.reshape(2, 2, 3, 4, 5)[1, 1, 2, 3])
    assert torch.equal(spec.from_frames(frames), output)


def test_sizes_of_packed_latents_from_coordinates() -> None:
    axes = torch.meshgrid(*(torch.arange(n).float() for n in (2, 3, 4)), indexing="ij")
    coordinates = torch.stack([axis.flatten() for axis in axes])[None]
    output = torch.randn(1, 24, 5, generator=torch.Generator().manual_seed(0))
    frames = LTX.to_frames(output, {"video_coords": coordinates})
    assert torch.equal(frames, LTX.to_frames(output, {"num_frames": 2, "height": 3, "width": 4}))
    with pytest.raises(ValueError, match="24 tokens"):
        LTX.to_frames(output, {"num_frames": 3, "height": 3, "width": 4})


def test_calls_beyond_guidance_are_skipped_with_the_others() -> None:
    """LTX-2 holding its whole output: no call of a skipped evaluation computes, neither picture nor sound."""
    family, computed = FAMILIES["ltx-2"], []
    pipe = family.build()
    for name in ("norm_out", "audio_norm_out"):
        pipe.transformer.get_submodule(name).register_forward_hook(lambda *_: computed.append(1))
    with keystep.accelerate(pipe, Policy((Rule(Output(), Every(3, start=3), Hold()),))) as session:
        family.sample(pipe)
    trace = session.trace
    assert trace.rows[0].branches == ("uncond", "cond", "further1", "further2")
    num_calls = 3  # both branches, perturbed, each modality alone
    assert len(computed) == 2 * num_calls * len(trace.key_steps) < 2 * num_calls * len(trace.rows)


def test_more_calls_than_a_model_may_have_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="called 2 times"):
        run(FAMILIES["ltx-2"], HOLD, spec=replace(LTX2, further_calls=0))


def test_motion_is_refused_where_tokens_are_not_those_of_frames() -> None:
    """FramePack's tokens of earlier sections stand in front of the frames."""
    with pytest.raises(ValueError, match="tokens at the probe are not those of 3 frames"):
        run(FAMILIES["framepack"], "adacache+moreg")
