"""Cases at the edge: half precision, short runs with options, calls outside a run, shared parts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler

import keystep
from keystep import Policy, Rule
from keystep.engine.clock import first_index
from keystep.engine.planner import Planner
from keystep.engine.tap import Tap
from keystep.how import Constant, Hold, Linear
from keystep.methods.fastercache import PRESETS, scale
from keystep.what import Attention, Output
from keystep.when import Every
from tests.families.parts import picture, to_pil
from tests.families.wan_like import FAMILIES
from tests.zoo import LATTE, WAN


def test_adacache_in_half_precision_holds_no_more_hidden_states() -> None:
    """Wan hands float32 copies to the modules where its stream is measured; they must not be what is kept."""
    pipe = WAN.build()
    pipe.transformer.to(torch.bfloat16)
    with keystep.accelerate(pipe, keystep.AdaCache(codebook={5.0: 3}, native=16)) as session:
        WAN.sample(pipe)
    assert session.trace is not None
    assert any(row.skipped for row in session.trace.rows)
    assert session.trace.peak_cache_bytes <= 2.1 * session.trace.hidden_state_bytes


@pytest.mark.parametrize("steps", [20, 50, 80])
def test_periods_given_by_the_user_hold_at_every_length(steps: int) -> None:
    policy = keystep.FasterCache(preset="latte", cfg_every=4, attention_every=3).policy("", steps)
    periods = {rule.label: rule.when.period for rule in policy.rules if isinstance(rule.when, Every)}
    assert periods == {"branch[uncond]": 4, "attention": 3}
    plans = plans_of(policy, steps)
    assert plans[-1].active == ("uncond", "cond"), "the last evaluation is full"


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "cogvideox"])
def test_full_evaluations_compute_attention_at_other_lengths(name: str) -> None:
    """CogVideoX is left out: its two periods meet once right after the start, while its entries are fresh."""
    for steps in (*range(12, 60), 100, 150):
        if steps == PRESETS[name].native:
            continue
        plans = plans_of(keystep.FasterCache(preset=name).policy("", steps), steps)
        first_part = next(i for i, plan in enumerate(plans) if len(plan.active) == 1)
        full = [plan for plan in plans[first_part:] if len(plan.active) == 2]
        assert all(plan.computes("attention") for plan in full), (name, steps)


@pytest.mark.parametrize("name", ["latte", "opensora-plan", "paper_default"])
def test_bands_that_meet_at_the_native_length_meet_at_others(name: str) -> None:
    preset = PRESETS[name]
    assert preset.low.stop + 1 == preset.high.start
    for steps in range(12, 200):
        scaled = scale(preset, steps)
        assert scaled.low.stop + 1 == scaled.high.start, steps


def plans_of(policy: keystep.Policy, steps: int) -> list[Any]:
    planner = Planner(policy, ("uncond", "cond"), steps)
    return list(planner.look_ahead(1, planner.start(), {})[0].values())


def test_calls_outside_a_run_leave_nothing_in_the_taps() -> None:
    pipe = LATTE.build()
    calls: list[tuple[Any, Any]] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    with keystep.accelerate(pipe, "fastercache"):
        LATTE.sample(pipe)
        with pytest.warns(keystep.KeystepWarning, match="after the last evaluation"), torch.no_grad():
            args, kwargs = calls[0]
            pipe.transformer(*args, **kwargs)
        owners = [getattr(module.forward, "__self__", None) for module in pipe.transformer.modules()]
        taps = [owner for owner in owners if isinstance(owner, Tap)]
        assert taps
        assert all(tap.value is None and not tap.should_skip for tap in taps)
    handle.remove()


def test_a_shared_transformer_is_not_taken_from_another_pipeline() -> None:
    one, other = WAN.build(), WAN.build()
    other.transformer = one.transformer
    keystep.enable(one, "adacache")
    with pytest.raises(ValueError, match="another WanPipeline"):
        keystep.enable(other, "fastercache")
    keystep.disable(one)


def test_attention_outside_the_blocks_is_refused() -> None:
    pipe = LATTE.build()
    with keystep.accelerate(pipe, "fastercache") as session:
        spec = replace(session.spec, blocks=("transformer_blocks",))
    with pytest.raises(ValueError, match="lies in none of the block lists"):
        keystep.enable(pipe, "fastercache", spec=spec)


def test_a_number_is_a_constant_weight() -> None:
    assert Linear(0.5) == Linear(Constant(0.5))


def test_a_method_may_not_grow_sites_with_the_length_of_the_run() -> None:
    class Growing:
        def policy(self, model: str, num_evaluations: int) -> keystep.Policy:
            span = keystep.AdaCache().policy(model, num_evaluations)
            rule = keystep.Rule(Attention(), Every(2), Linear(0.5))
            return span if num_evaluations == 50 else keystep.Policy((rule,))

    pipe = LATTE.build()
    with keystep.accelerate(pipe, Growing()), pytest.raises(ValueError, match="attention shows up"):
        LATTE.sample(pipe)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the sampler's own use of numpy
@pytest.mark.parametrize("start", [0, 2, 5])
def test_a_start_in_the_middle_of_repeated_timesteps(start: int) -> None:
    scheduler = HeunDiscreteScheduler()
    scheduler.set_timesteps(10)
    times = scheduler.timesteps.tolist()
    begin = start * scheduler.order
    pipeline = SimpleNamespace(_num_timesteps=len(times) - begin)
    assert first_index(times, times[begin], scheduler, pipeline) == begin
    scheduler.set_begin_index(begin)
    assert first_index(times, times[begin], scheduler, SimpleNamespace()) == begin
    assert first_index(times, -1.0, scheduler, SimpleNamespace()) == begin


def test_a_wrong_layout_found_at_the_end_of_an_evaluation_leaves_no_run() -> None:
    pipe = LATTE.build()
    with keystep.accelerate(pipe, "fastercache", guidance="separate:cond,uncond") as session:
        with pytest.raises(RuntimeError, match="layout"):
            LATTE.sample(pipe)
        assert session.run is None


def test_what_is_measured_has_no_history_of_gradients() -> None:
    pipe = WAN.build()
    method = keystep.AdaCache(codebook={5.0: 3}, native=8)
    with keystep.accelerate(pipe.transformer, method) as session:
        session.begin(8)
        latent = torch.randn(1, 4, 3, 8, 8)
        for time, _ in itertools.product((900.0, 800.0), range(2)):
            pipe.transformer(latent, torch.tensor([time]), torch.randn(1, 7, 20))
            held = [
                v for entries in session.run.histories._entries.values() for e in entries for v in e.values
            ]
            assert not any(value.requires_grad for value in held)
            if len(session.run._seen) == 2:
                session.step()
        assert held


def test_frames_at_noise_levels_of_their_own_are_refused() -> None:
    """SkyReels-V2 frame after frame: 12 timesteps, 36 evaluations; the plain pipeline is as it was."""
    family = next(family for family in FAMILIES if family.name == "skyreels-v2-forcing")
    pipe = family.build()
    pipe.transformer.num_frame_per_block = 1
    forcing = {"ar_step": 6, "causal_block_size": 1, "num_frames": 17}
    plain = family.sample(pipe, **forcing)
    with keystep.accelerate(pipe, Policy((Rule(Output(), Every(2), Hold()),))) as session:
        with pytest.raises(ValueError, match="ar_step: SkyReelsV2D.* plans 36 evaluations for 12 timesteps"):
            family.sample(pipe, **forcing)
        family.sample(pipe, ar_step=0, num_frames=17)
        assert session.trace is not None and session.trace.is_complete
    assert torch.equal(family.sample(pipe, **forcing), plain)


def test_segments_of_a_video_are_generations_of_their_own() -> None:
    """Wan-Animate sets its timesteps anew for each segment."""
    family = next(family for family in FAMILIES if family.name == "wan-animate")
    pipe = family.build()
    frame, face = to_pil(picture()[0]), to_pil(picture()[0, :, :16, :16])
    two = {"pose_video": [frame] * 16, "face_video": [face] * 16}
    with keystep.accelerate(pipe, Policy((Rule(Output(), Every(2), Hold()),))) as session:
        family.sample(pipe, **two)
        skips = [[row.evaluation for row in trace.rows if row.skipped] for trace in session.traces]
    assert skips == [[3, 5, 7, 9, 11]] * 2
