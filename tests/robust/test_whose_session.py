"""Which pipeline a session belongs to: shared parts, copied schedulers, replaced transformers."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LattePipeline, WanPipeline

import keystep
from keystep import FasterCache, Policy, Rule
from keystep.how import Hold
from keystep.what import Span
from keystep.when import Every
from tests.families import audio, hunyuan_like
from tests.laws.instruments import differences, may_warn, snapshot
from tests.matrix import METHODS, decisions
from tests.zoo import LATTE, WAN, quiet, wan_transformer

BRANCHES = FasterCache(attention=False)
HOLD = Policy((Rule(Span(), Every(3, start=3), Hold()),), "hold")


def around(scheduler: Any, seed: int = 5) -> WanPipeline:
    """A pipeline with a transformer of its own."""
    return quiet(WanPipeline(None, None, None, scheduler, wan_transformer(seed)))


# ------------------------------------------------------------------ parts shared by two pipelines


class Sibling(LattePipeline):
    pass


def test_a_pipeline_that_shares_all_parts_is_told_to_be_enabled_itself() -> None:
    """Asked for the guidance of the other one, two prompts would be taken for both branches of one."""
    pipe = LATTE.build()
    other = quiet(Sibling.from_pipe(pipe))
    assert other.scheduler is pipe.scheduler and other.transformer is pipe.transformer
    plain = LATTE.sample(other, batch=2, scale=1.0)
    session = keystep.enable(pipe, BRANCHES)
    guided = LATTE.sample(pipe)
    with pytest.raises(RuntimeError, match=r"the Sibling that is running .* the LattePipeline .*disable"):
        LATTE.sample(other, batch=2, scale=1.0)
    assert torch.equal(LATTE.sample(pipe), guided) and session.trace is not None
    assert session.trace.count_skips("branch[uncond]") > 0
    keystep.disable(pipe)
    session = keystep.enable(other, BRANCHES)
    with may_warn():
        assert torch.equal(LATTE.sample(other, batch=2, scale=1.0), plain)
    assert session.trace is not None and not session.trace.guided
    keystep.disable(other)


class Outer:
    """Calls a pipeline and passes on what it shows."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["inner"], name)

    def __call__(self, **arguments: Any) -> Any:
        return self.inner(**arguments)


class Loop:
    """A sampler's loop in a class of its own, as research code has it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    @torch.no_grad()
    def sample(
        self, transformer: Any, steps: int = 16, breaks_off: int = 0, aside: Any = None
    ) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        x, text = torch.randn(1, *WAN.latent, generator=generator), torch.ones(1, 7, 20)
        self.scheduler.set_timesteps(steps)
        for index, time in enumerate(self.scheduler.timesteps):
            x = self.scheduler.step(transformer(x, time.expand(1), text)[0], time, x, return_dict=False)[0]
            if aside is not None and index == 5:
                aside()
            if breaks_off and index == breaks_off:
                break
        return x


@pytest.mark.parametrize("is_outer_enabled", [False, True])
def test_a_wrapper_may_call_the_pipeline(is_outer_enabled: bool) -> None:
    outer = Outer(WAN.build())
    with keystep.accelerate(WAN.build(), "fastercache") as session:
        expected = WAN.sample(session.target)
    with keystep.accelerate(outer if is_outer_enabled else outer.inner, "fastercache") as session:
        assert torch.equal(WAN.sample(outer), expected)
    assert session.trace is not None and session.trace.is_complete


def test_a_loop_that_has_no_pipeline_is_followed() -> None:
    pipe = WAN.build()
    loop = Loop(pipe.scheduler)
    plain = loop.sample(pipe.transformer)
    with keystep.accelerate(pipe, "auto", speedup=2.0) as session:
        found = loop.sample(pipe.transformer)
    assert session.trace is not None and session.trace.is_complete and len(session.trace.key_steps) == 8
    assert 0 < (found - plain).norm() < 0.5 * plain.norm()


def test_a_plain_pipeline_that_shares_the_scheduler_makes_its_own_steps() -> None:
    pipe = WAN.build()
    other = around(pipe.scheduler)
    plain = WAN.sample(other, steps=4)
    with keystep.accelerate(pipe, "auto", quality="converged") as session:
        assert torch.equal(WAN.sample(other, steps=4), plain)
        assert session.trace is None
        WAN.sample(pipe, steps=4)
        assert session.trace is not None and session.trace.num_evaluations == 16


# ------------------------------------------------------------------ copies of a followed scheduler


@pytest.mark.parametrize("is_thread", [False, True])
def test_a_copied_scheduler_of_a_plain_pipeline_disturbs_nobody(is_thread: bool) -> None:
    pipe = WAN.build()
    session = keystep.enable(pipe, "fastercache")
    expected = WAN.sample(pipe)
    other = around(copy.deepcopy(pipe.scheduler))
    plain = WAN.sample(around(FlowMatchEulerDiscreteScheduler(shift=3.0)), steps=6)
    results = []

    def run(pipe: Any, index: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if index == 5:
            thread = threading.Thread(target=lambda: results.append(WAN.sample(other, steps=6)))
            if is_thread:
                thread.start()
                thread.join()
            else:
                thread.run()
        return {}

    assert torch.equal(WAN.sample(pipe, call={"callback_on_step_end": run}), expected)
    assert torch.equal(results[0], plain)
    assert [trace.is_complete for trace in session.traces] == [True, True]
    assert not {"step", "set_timesteps"} & set(vars(other.scheduler)), "as if it never had been followed"
    keystep.disable(pipe)


def test_a_copy_without_a_pipeline_stays_out_of_the_generation_under_way() -> None:
    """Of the same thread and of another one; there the first steps may even come before any of ours."""
    pipe = WAN.build()
    with keystep.accelerate(pipe, "auto") as session:
        expected = Loop(pipe.scheduler).sample(pipe.transformer)
        other, transformer = Loop(copy.deepcopy(pipe.scheduler)), wan_transformer(5)
        plain = Loop(FlowMatchEulerDiscreteScheduler(shift=3.0)).sample(transformer)
        results = []

        def aside() -> None:
            results.append(other.sample(transformer))
            thread = threading.Thread(target=lambda: results.append(other.sample(transformer)))
            thread.start()
            thread.join()

        found = Loop(pipe.scheduler).sample(pipe.transformer, aside=aside)
        assert torch.equal(found, expected)
        assert len(results) == 2 and all(torch.equal(result, plain) for result in results)
        assert [trace.is_complete for trace in session.traces] == [True, True]


def test_a_pipeline_with_a_copied_scheduler_can_be_enabled() -> None:
    pipe = WAN.build()
    untouched = around(copy.deepcopy(pipe.scheduler))
    WAN.sample(untouched)
    keystep.enable(pipe, "fastercache")
    other = around(copy.deepcopy(pipe.scheduler))
    session = keystep.enable(other, "fastercache")
    WAN.sample(other)
    assert session.trace is not None and any(row.skipped for row in session.trace.rows)
    keystep.disable(other)
    assert differences(snapshot(untouched)["scheduler"], snapshot(other)["scheduler"]) == []
    third = around(pipe.scheduler)
    with pytest.raises(ValueError, match="the same scheduler object"):
        keystep.enable(third, "fastercache")
    keystep.disable(pipe)


def test_a_copy_outlives_the_session_as_a_plain_scheduler() -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, "auto", quality="converged"):
        inside = copy.deepcopy(pipe.scheduler)
        inside.set_timesteps(10)
        assert len(inside.timesteps) == 40, "nobody can tell that it is not the pipeline's, as LTX-2's is"
    held = weakref.ref(pipe.transformer)
    del pipe
    gc.collect()
    assert held() is None, "a copy keeps no pipeline alive"
    inside.set_timesteps(10)
    assert len(inside.timesteps) == 10
    again = copy.deepcopy(inside)
    again.set_timesteps(7)
    assert (len(inside.timesteps), len(again.timesteps)) == (10, 7)
    with keystep.accelerate(around(inside), "fastercache") as session:
        WAN.sample(session.target)
    assert session.trace is not None and session.trace.num_evaluations == 16


@pytest.mark.parametrize("copied", [copy.copy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_a_shallow_copy_is_a_plain_scheduler_inside_and_afterwards(copied: Callable[[Any], Any]) -> None:
    pipe, other = WAN.build(), WAN.build()
    plain = WAN.sample(other)
    with keystep.accelerate(pipe, "fastercache") as session:
        WAN.sample(pipe, steps=8)
        other.scheduler = copied(pipe.scheduler)
        assert torch.equal(WAN.sample(other), plain)
        assert len(session.traces) == 1
        assert len(pipe.scheduler.timesteps) == 8
        twin = copied(copy.deepcopy(pipe.scheduler))
        assert not {"step", "set_timesteps"} & set(vars(twin))
    assert torch.equal(WAN.sample(other), plain)


def test_the_sound_is_followed_after_a_generation_that_broke_off() -> None:
    """LTX-2 copies its scheduler and sets the copy's timesteps first, the old run not yet forgotten."""
    family = next(family for family in audio.FAMILIES if family.name == "ltx-2")
    pipe = family.build()

    def stop(pipe: Any, index: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = index == 8
        return {}

    def both() -> list[torch.Tensor]:
        call = family.inputs(1, True) | {"height": 64, "width": 64, "num_frames": 9}
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            output = pipe(num_inference_steps=12, generator=generator, output_type="latent", **call)
        return [output.frames, output.audio]

    for method in ("auto", HOLD):
        with keystep.accelerate(pipe, method) as session:
            expected = both()
            family.sample(pipe, callback_on_step_end=stop)
            assert session.run is not None and len(session.run.trace.rows) == 9
            assert all(torch.equal(*pair) for pair in zip(both(), expected, strict=True))
            assert session.trace is not None and session.trace.is_complete


def test_a_step_alone_is_copied_with_its_scheduler() -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, HOLD):
        pipe.scheduler.set_timesteps(4)
        step, x = copy.deepcopy(pipe.scheduler.step), torch.ones(1, 2)
        step(x, pipe.scheduler.timesteps[0], x)
        assert pipe.scheduler.step_index is None


# ------------------------------------------------------------------ what is replaced after attaching


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("method", ["fastercache", "auto"])
def test_a_replaced_transformer_is_a_clear_error(method: str, is_compiled: bool) -> None:
    pipe = WAN.build()
    WAN.sample(pipe)
    old, before = pipe.transformer, snapshot(pipe)
    keystep.enable(pipe, method)
    pipe.transformer = torch.compile(old, backend="eager") if is_compiled else wan_transformer(3)
    with pytest.raises(RuntimeError, match=r"pipe\.transformer was replaced .* keystep\.enable\(\) again"):
        WAN.sample(pipe)
    if is_compiled and method != "auto":
        with pytest.raises(ValueError, match="compile its blocks instead"):
            keystep.enable(pipe, method)
    else:
        session = keystep.enable(pipe, method)
        WAN.sample(pipe)
        assert session.trace is not None and any(row.skipped for row in session.trace.rows)
    keystep.disable(pipe)
    pipe.transformer = old
    WAN.sample(pipe)
    found = [place for place in differences(before, snapshot(pipe)) if "_is_torch_compile" not in place]
    assert found == [], "the old one is restored too"


def test_a_second_transformer_that_comes_later_is_a_clear_error() -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, "fastercache"):
        pipe.transformer_2 = wan_transformer(1)
        with pytest.raises(RuntimeError, match=r"pipe\.transformer_2 was replaced"):
            WAN.sample(pipe)


# ------------------------------------------------------------------ what a session is given, and says


@pytest.mark.parametrize("storage", ["cpu", {"device": "cpu"}])
def test_a_storage_of_another_type(storage: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"storage: given .*cpu.*, allowed: .*keystep\.Storage"),
        keystep.accelerate(WAN.build(), "adacache", storage=storage),
    ):
        pass


@pytest.mark.parametrize(("scale", "word"), [(4.0, "on"), (1.0, "off")])
def test_auto_says_whether_there_is_guidance(scale: float, word: str) -> None:
    with keystep.accelerate(WAN.build(), "auto") as session:
        WAN.sample(session.target, scale=scale)
    assert f"guidance {word}" in session.summary()


def test_a_pipeline_that_shows_no_guidance_is_accelerated_by_auto() -> None:
    pipe = WAN.build()
    bare = SimpleNamespace(transformer=pipe.transformer, scheduler=pipe.scheduler)
    with keystep.accelerate(bare, "auto") as session:
        Loop(pipe.scheduler).sample(pipe.transformer)
    assert session.trace is not None and session.trace.is_complete
    assert session.trace.guided is None and "guidance not shown by the pipeline" in session.summary()


def test_an_embedded_scale_is_not_taken_for_guidance_elsewhere() -> None:
    """HunyuanVideo's scale is given to the model: methods that tell branches apart go by the calls."""
    family = next(family for family in hunyuan_like.FAMILIES if family.name == "hunyuan")
    pipe = family.build()
    with keystep.accelerate(pipe, METHODS["fastercache"]) as session:
        family.sample(pipe, is_guided=False)
    assert session.trace is not None and not session.trace.guided
    assert "branch[uncond]" not in decisions(session.trace)
