"""Defects found in other caching packages, each a test that passes here."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from accelerate.hooks import CpuOffload, add_hook_to_module, remove_hook_from_module
from diffusers import (
    FasterCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    PyramidAttentionBroadcastConfig,
    WanPipeline,
)

import keystep
from keystep import KeystepWarning, Policy, Rule
from keystep.how import Hold
from keystep.what import Attention, Span
from keystep.when import Every
from tests.laws.instruments import Count, differences, snapshot
from tests.matrix import METHODS, decisions, pipe_of, plain
from tests.zoo import COGVIDEOX, LATTE, WAN, Zoo, quiet

REUSE = Policy((Rule(Attention(), Every(2, start=4), Hold()),), "reuse")


def accelerated(zoo: Zoo, method: Any, **arguments: Any) -> torch.Tensor:
    """What the method gives on a pipeline of its own."""
    pipe = zoo.build()
    with keystep.accelerate(pipe, method):
        return zoo.sample(pipe, **arguments)


# ------------------------------------------------------------------ two pipelines of one class


def test_two_pipelines_of_one_class_one_disabled_while_the_other_lives() -> None:
    one, other, third = COGVIDEOX.build(), COGVIDEOX.build(), COGVIDEOX.build()
    expected = {name: accelerated(COGVIDEOX, METHODS[name]) for name in ("fastercache", "adacache")}
    keystep.enable(one, METHODS["fastercache"])
    keystep.enable(other, METHODS["adacache"])
    assert torch.equal(COGVIDEOX.sample(one), expected["fastercache"])
    assert torch.equal(COGVIDEOX.sample(other), expected["adacache"])
    keystep.disable(one)
    assert torch.equal(COGVIDEOX.sample(one), plain(COGVIDEOX))
    assert torch.equal(COGVIDEOX.sample(other), expected["adacache"])
    assert torch.equal(COGVIDEOX.sample(third), plain(COGVIDEOX)), "a pipeline nobody accelerated"
    keystep.disable(other)
    assert torch.equal(COGVIDEOX.sample(other), plain(COGVIDEOX))


def test_two_pipelines_interleaved_step_by_step_in_one_thread() -> None:
    """In the middle of one generation another pipeline makes a whole one, and a third a plain one."""
    one, other, third = WAN.build(), WAN.build(), WAN.build()
    expected = {name: accelerated(WAN, METHODS[name]) for name in ("fastercache", "adacache")}
    inner = []

    def nest(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i in (3, 8):
            inner.append((WAN.sample(other), WAN.sample(third)))
        return {}

    with keystep.accelerate(one, METHODS["fastercache"]), keystep.accelerate(other, METHODS["adacache"]):
        outer = WAN.sample(one, call={"callback_on_step_end": nest})
    assert torch.equal(outer, expected["fastercache"])
    for nested, untouched in inner:
        assert torch.equal(nested, expected["adacache"])
        assert torch.equal(untouched, plain(WAN))


def test_two_pipelines_in_two_threads() -> None:
    """Turn by turn: each callback hands over to the other thread."""
    names = ("fastercache", "adacache")
    expected = {name: accelerated(WAN, METHODS[name]) for name in names}
    turns = threading.Barrier(2, timeout=60)
    results: dict[str, Any] = {}

    def generate(name: str) -> None:
        def wait(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
            turns.wait()
            return {}

        try:
            pipe = WAN.build()
            with keystep.accelerate(pipe, METHODS[name]):
                results[name] = WAN.sample(pipe, call={"callback_on_step_end": wait})
        except BaseException as error:
            results[name] = error
            turns.abort()

    threads = [threading.Thread(target=generate, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert isinstance(results[name], torch.Tensor), results[name]
        assert torch.equal(results[name], expected[name])


def test_a_second_thread_on_the_same_pipeline_gets_a_clear_error() -> None:
    pipe, errors = WAN.build(), []
    fresh = accelerated(WAN, METHODS["adacache"])

    def intrude() -> None:
        try:
            call = WAN.inputs(pipe, torch.randn(1, *WAN.latent), 500.0, torch.randn(1, 7, 20))
            with torch.no_grad():
                pipe.transformer(**call)
        except BaseException as error:
            errors.append(error)

    def callback(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i == 6:
            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join()
        return {}

    with keystep.accelerate(pipe, METHODS["adacache"]):
        latents = WAN.sample(pipe, call={"callback_on_step_end": callback})
    (error,) = errors
    assert isinstance(error, RuntimeError) and "one pipeline per thread" in str(error)
    assert torch.equal(latents, fresh), "the generation under way goes on undisturbed"


def test_a_second_generation_from_another_thread_never_mixes_silently() -> None:
    """Two threads, one pipeline and one scheduler: at least one of them is told."""
    pipe, results = WAN.build(), {}

    def generate(name: str, call: dict[str, Any]) -> None:
        try:
            results[name] = WAN.sample(pipe, call=call)
        except BaseException as error:
            results[name] = error

    def callback(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i == 6:
            thread = threading.Thread(target=generate, args=("inner", {}))
            thread.start()
            thread.join()
        return {}

    with keystep.accelerate(pipe, METHODS["fastercache"]):
        generate("outer", {"callback_on_step_end": callback})
    assert len(results) == 2
    assert any(isinstance(value, (RuntimeError, KeystepWarning)) for value in results.values())


# ------------------------------------------------------------------ settings


def test_enabling_twice_takes_the_new_settings() -> None:
    pipe = WAN.build()
    WAN.sample(pipe)
    before = snapshot(pipe)
    keystep.enable(pipe, "adacache", codebook={5.0: 2}, native=16)
    first = WAN.sample(pipe)
    session = keystep.enable(pipe, "adacache", codebook={5.0: 6}, native=16)
    second = WAN.sample(pipe)
    assert torch.equal(second, accelerated(WAN, keystep.AdaCache({5.0: 6}, native=16)))
    assert not torch.equal(first, second)
    assert len(session.trace.key_steps) < 10
    keystep.enable(pipe, "fastercache")
    keystep.disable(pipe)
    WAN.sample(pipe)
    assert differences(before, snapshot(pipe)) == []


def test_enable_inside_a_with_block_is_refused() -> None:
    """Leaving the block restores the pipeline, so nothing in it may outlast it."""
    pipe = WAN.build()
    WAN.sample(pipe)
    before = snapshot(pipe)
    expected = accelerated(WAN, METHODS["fastercache"])
    with keystep.accelerate(pipe, METHODS["fastercache"]):
        with pytest.raises(ValueError, match="leave that block first"):
            keystep.enable(pipe, METHODS["adacache"])
        assert torch.equal(WAN.sample(pipe), expected)
    assert differences(before, snapshot(pipe)) == []


def test_a_second_live_run_on_one_module_is_refused() -> None:
    pipe = WAN.build()
    shared = quiet(
        WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(shift=3.0), pipe.transformer)
    )
    with keystep.accelerate(pipe, METHODS["fastercache"]):
        fresh = WAN.sample(pipe)
        for target in (pipe, shared, pipe.transformer):
            with (
                pytest.raises(ValueError, match="already accelerated"),
                keystep.accelerate(target, "adacache"),
            ):
                pass
        assert torch.equal(WAN.sample(pipe), fresh)
    with keystep.accelerate(shared, METHODS["fastercache"]):
        assert torch.equal(WAN.sample(shared), fresh)
    assert torch.equal(WAN.sample(pipe), plain(WAN))


def test_the_other_pipeline_of_a_shared_transformer_is_told() -> None:
    """Its scheduler is not followed: an error, not a video made of the other pipeline's features."""
    pipe = WAN.build()
    shared = quiet(
        WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(shift=3.0), pipe.transformer)
    )
    with keystep.accelerate(pipe, METHODS["fastercache"]), pytest.raises(RuntimeError):
        WAN.sample(shared)
    with keystep.accelerate(pipe, METHODS["fastercache"]):
        WAN.sample(pipe)
        with pytest.warns(KeystepWarning, match="again after the last"):
            latents = WAN.sample(shared)
        assert torch.equal(latents, plain(WAN)), "computed in full"


def test_two_pipelines_that_share_a_scheduler() -> None:
    """One of them would be told of the other's steps: refused, with the way out; nothing stays attached."""
    one, other = WAN.build(), WAN.build()
    other.scheduler = one.scheduler
    WAN.sample(one)
    WAN.sample(other)
    before, untouched = snapshot(one), snapshot(other)
    keystep.enable(one, METHODS["fastercache"])
    with pytest.raises(ValueError, match="from_config"):
        keystep.enable(other, METHODS["adacache"])
    assert torch.equal(WAN.sample(one), accelerated(WAN, METHODS["fastercache"]))
    other.scheduler = type(one.scheduler).from_config(one.scheduler.config)
    keystep.enable(other, METHODS["adacache"])
    assert torch.equal(WAN.sample(other), accelerated(WAN, METHODS["adacache"]))
    keystep.disable(one)
    assert torch.equal(WAN.sample(other), accelerated(WAN, METHODS["adacache"]))
    keystep.disable(other)
    WAN.sample(one)
    assert differences(before, snapshot(one)) == []
    kept = {key: value for key, value in untouched.items() if key != "scheduler"}
    assert (
        differences(kept, {key: value for key, value in snapshot(other).items() if key != "scheduler"}) == []
    )


def test_a_replaced_scheduler_is_a_clear_error() -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, METHODS["fastercache"]):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
        with pytest.raises(RuntimeError, match="pipe.scheduler was replaced"):
            WAN.sample(pipe)
    session = keystep.enable(pipe, METHODS["fastercache"])
    WAN.sample(pipe)
    assert session.trace.is_complete
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    keystep.enable(pipe, METHODS["fastercache"])
    assert torch.equal(WAN.sample(pipe), accelerated(WAN, METHODS["fastercache"]))
    keystep.disable(pipe)


# ------------------------------------------------------------------ branches and layouts


def test_separate_calls_never_share_a_branch() -> None:
    """Changing the negative prompt alone must not change what the conditional branch computes."""
    outputs: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    for seed in outputs:
        pipe = WAN.build()
        generator = torch.Generator().manual_seed(seed)
        texts = {"cond": torch.ones(1, 7, 20), "uncond": torch.randn(1, 7, 20, generator=generator)}
        with torch.no_grad(), keystep.accelerate(pipe.transformer, REUSE) as session:
            session.begin(12, True, [900.0 - 50 * k for k in range(12)])
            for k in range(12):
                x = torch.full((1, *WAN.latent), 0.1 * k)
                outputs[seed].append(
                    pipe.transformer(**WAN.inputs(pipe, x, 900.0 - 50 * k, texts["cond"]))[0]
                )
                pipe.transformer(**WAN.inputs(pipe, x, 900.0 - 50 * k, texts["uncond"]))
                session.step()
        assert session.trace.count_skips("attention") == 4
    for one, other in zip(*outputs.values(), strict=True):
        assert torch.equal(one, other)


def test_a_wrong_layout_is_an_error_not_a_wrong_video() -> None:
    with (
        keystep.accelerate(pipe_of(WAN), "fastercache", guidance="batched:uncond,cond"),
        pytest.raises((RuntimeError, ValueError), match="guidance"),
    ):
        WAN.sample(pipe_of(WAN))
    for zoo in (LATTE, COGVIDEOX):
        for method in ("fastercache", METHODS["adacache"]):
            with (
                keystep.accelerate(pipe_of(zoo), method, guidance="separate:cond,uncond"),
                pytest.raises((RuntimeError, ValueError), match="guidance"),
            ):
                zoo.sample(pipe_of(zoo), batch=2)
    assert torch.equal(LATTE.sample(pipe_of(LATTE)), plain(LATTE))


def test_latte_with_its_two_block_lists() -> None:
    """Spatial and temporal blocks interleave and change the layout in between."""
    for policy in (Policy((Rule(Span(), Every(2, start=4), Hold()),)), REUSE, METHODS["adacache"]):
        with keystep.accelerate(pipe_of(LATTE), policy) as session:
            LATTE.sample(pipe_of(LATTE), batch=2)
        assert any(row.skipped for row in session.trace.rows)


# ------------------------------------------------------------------ nothing silently idle


def test_a_method_that_skips_nothing_warns() -> None:
    for method in ("fastercache", "adacache"):
        with (
            keystep.accelerate(pipe_of(WAN), method),
            pytest.warns(KeystepWarning, match="nothing was skipped"),
        ):
            WAN.sample(pipe_of(WAN), steps=4)


def test_patterns_of_the_shipped_specs_match_something() -> None:
    """Every attention kind of every spec really taps modules: a pattern that matches nothing would idle."""
    for zoo, kinds in ((LATTE, ("spatial", "temporal")), (COGVIDEOX, ("joint",)), (WAN, ("self", "cross"))):
        for kind in kinds:
            policy = Policy((Rule(Attention((kind,)), Every(2, start=4), Hold()),))
            with keystep.accelerate(pipe_of(zoo), policy) as session:
                latents = zoo.sample(pipe_of(zoo))
            assert session.trace.count_skips(f"attention[{kind}]") == 6
            assert not torch.equal(latents, plain(zoo)), kind


def test_diffusers_own_cache_is_refused() -> None:
    configs = [
        FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            tensor_format="BFCHW",
            current_timestep_callback=lambda: 500,
        ),
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
        ),
    ]
    for config in configs:
        pipe = COGVIDEOX.build()
        pipe.transformer.enable_cache(config)
        with pytest.raises(ValueError, match="disable_cache"), keystep.accelerate(pipe, "fastercache"):
            pass
        pipe.transformer.disable_cache()
        with keystep.accelerate(pipe, "fastercache"):
            COGVIDEOX.sample(pipe)


def test_diffusers_cache_enabled_later_is_told() -> None:
    """Two caches at work at once must not pass silently."""
    pipe = COGVIDEOX.build()
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    with keystep.accelerate(pipe, "fastercache"):
        pipe.transformer.enable_cache(config)
        with pytest.raises((RuntimeError, ValueError), match="cache"):
            COGVIDEOX.sample(pipe)
        pipe.transformer.disable_cache()
        COGVIDEOX.sample(pipe)


def test_whole_model_compilation_is_refused() -> None:
    pipe = WAN.build()
    pipe.transformer.compile(backend="eager")
    with pytest.raises(ValueError, match="compile its blocks"), keystep.accelerate(pipe, "fastercache"):
        pass


def test_compiling_blocks_after_attaching_is_told() -> None:
    """`block.compile()` takes the place of the block's call; unchecked, the method would idle."""
    for name in ("fastercache", "adacache"):
        pipe = WAN.build()
        with keystep.accelerate(pipe, METHODS[name]):
            for block in pipe.transformer.blocks:
                block.compile(backend="eager")
            with pytest.raises(RuntimeError, match="compile first"):
                WAN.sample(pipe)


# ------------------------------------------------------------------ other people's patches


def sites(pipe: Any) -> list[torch.nn.Module]:
    """The transformer, its blocks, and what keystep taps inside of them."""
    blocks = list(pipe.transformer.blocks)
    return [pipe.transformer, *blocks, *(block.attn1 for block in blocks), *(block.norm2 for block in blocks)]


@pytest.mark.parametrize("name", ["fastercache", "adacache"])
def test_forward_patches_made_before_work_and_stay(name: str) -> None:
    pipe, expected = WAN.build(), accelerated(WAN, METHODS[name])
    hooks = {module: Count() for module in sites(pipe)}
    for module, hook in hooks.items():
        add_hook_to_module(module, hook)
    WAN.sample(pipe)
    before = snapshot(pipe)
    for hook in hooks.values():
        hook.num_calls = 0
    with keystep.accelerate(pipe, METHODS[name]):
        assert torch.equal(WAN.sample(pipe), expected)
    WAN.sample(pipe)
    assert differences(before, snapshot(pipe)) == []
    assert hooks[pipe.transformer].num_calls < 64 + (name == "adacache")
    for module in hooks:
        remove_hook_from_module(module)
    assert torch.equal(WAN.sample(pipe), plain(WAN))


@pytest.mark.parametrize("name", ["fastercache", "adacache"])
def test_forward_patches_made_inside_survive_leaving(name: str) -> None:
    """Added while accelerated, still there afterwards, and removable without a trace of keystep."""
    pipe, expected = WAN.build(), accelerated(WAN, METHODS[name])
    WAN.sample(pipe)
    before = snapshot(pipe)
    hooks = {module: Count() for module in [pipe.transformer, *pipe.transformer.blocks]}
    with keystep.accelerate(pipe, METHODS[name]):
        for module, hook in hooks.items():
            add_hook_to_module(module, hook)
        assert torch.equal(WAN.sample(pipe), expected)
    counts = [hook.num_calls for hook in hooks.values()]
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    assert all(hook.num_calls > count for hook, count in zip(hooks.values(), counts, strict=True))
    for module in hooks:
        remove_hook_from_module(module)
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    left = [
        d for d in differences(before, snapshot(pipe)) if "/dict/forward" not in d and "/forward:" not in d
    ]
    assert left == [], "accelerate itself leaves the original forward as an instance attribute"


def test_forward_patches_on_tapped_modules_survive_leaving() -> None:
    """The same on the attention modules themselves, whose forward keystep replaces."""
    pipe, expected = WAN.build(), accelerated(WAN, METHODS["fastercache"])
    hooks = {block.attn1: Count() for block in pipe.transformer.blocks}
    with keystep.accelerate(pipe, METHODS["fastercache"]):
        for module, hook in hooks.items():
            add_hook_to_module(module, hook)
        assert torch.equal(WAN.sample(pipe), expected)
    counts = [hook.num_calls for hook in hooks.values()]
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    assert all(hook.num_calls > count for hook, count in zip(hooks.values(), counts, strict=True))
    for module in hooks:
        remove_hook_from_module(module)
    assert torch.equal(WAN.sample(pipe), plain(WAN))


def test_offload_of_a_module() -> None:
    """accelerate's own cpu offload hook (here from cpu to cpu) around every block."""
    pipe, expected = WAN.build(), accelerated(WAN, METHODS["fastercache"])
    for block in pipe.transformer.blocks:
        add_hook_to_module(block, CpuOffload(execution_device="cpu"))
    with keystep.accelerate(pipe, METHODS["fastercache"]) as session:
        assert torch.equal(WAN.sample(pipe), expected)
    assert "s" in decisions(session.trace)["attention"]


def test_user_hooks_see_what_runs_and_stay() -> None:
    pipe, seen = WAN.build(), []
    handle = pipe.transformer.register_forward_hook(lambda *_: seen.append(1))
    with keystep.accelerate(pipe, METHODS["fastercache-cfg"]) as session:
        WAN.sample(pipe)
    ran = sum(len(row.branches) for row in session.trace.rows)
    assert len(seen) == ran < 32
    WAN.sample(pipe)
    assert len(seen) == ran + 32
    handle.remove()
