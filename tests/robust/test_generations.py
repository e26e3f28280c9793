"""Generations of every kind: samplers, strengths, interruptions, short runs, guidance, dtypes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    CogVideoXVideoToVideoPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
    WanVideoToVideoPipeline,
)

import keystep
from keystep import FasterCache, KeystepWarning, Policy, Rule
from keystep.how import FrequencyBands, Hold, Linear
from keystep.what import Attention, Branch, PrefixResidual, Span
from keystep.when import Below, Every, Mask, RelativeChange
from tests.counts import count_skipped
from tests.laws.instruments import may_warn
from tests.matrix import METHODS, NEVER, accelerated_drive, decisions, drive, pipe_of, plain, scale_of
from tests.zoo import COGVIDEOX, LATTE, WAN, WAN22, Zoo, quiet


def rebuilt(zoo: Zoo, scheduler: Any) -> Any:
    pipe = zoo.build()
    pipe.scheduler = scheduler
    return pipe


BETAS = {"beta_schedule": "linear", "beta_end": 0.02}
# (model, scheduler class, options, evaluations of a run of 16 steps)
SCHEDULERS: dict[str, tuple[Zoo, Any, dict[str, Any], int]] = {
    "heun": (LATTE, HeunDiscreteScheduler, BETAS, 31),
    "pndm-runge-kutta": (LATTE, PNDMScheduler, BETAS, 25),
    "euler": (LATTE, EulerDiscreteScheduler, BETAS, 16),
    "multistep": (LATTE, DPMSolverMultistepScheduler, BETAS, 16),
    "unipc": (LATTE, UniPCMultistepScheduler, BETAS, 16),
    "cogvideox-dpm": (COGVIDEOX, CogVideoXDPMScheduler, {}, 16),
    "flow-heun": (WAN, FlowMatchHeunDiscreteScheduler, {"shift": 3.0}, 31),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy's, from inside of diffusers
@pytest.mark.parametrize("name", SCHEDULERS)
def test_samplers(name: str) -> None:
    """Evaluations are counted, not steps; never skipping is bit-identical; the second run is the first."""
    zoo, cls, options, evaluations = SCHEDULERS[name]
    scheduler = cls(**options)
    pipe = rebuilt(zoo, scheduler)
    before = zoo.sample(pipe)
    with keystep.accelerate(pipe, NEVER["always"]) as session:
        assert torch.equal(zoo.sample(pipe), before)
    assert session.trace.num_evaluations == len(session.trace.rows) == evaluations == len(scheduler.timesteps)
    assert [row.timestep for row in session.trace.rows] == scheduler.timesteps.tolist()
    for method in (METHODS["fastercache"], keystep.AdaCache({5.0: 3}, native=evaluations)):
        with keystep.accelerate(pipe, method) as session:
            first = zoo.sample(pipe)
            assert torch.equal(zoo.sample(pipe), first)
        assert session.trace.is_complete and len(session.trace.rows) == evaluations
        assert any(row.skipped for row in session.trace.rows)
    assert torch.equal(zoo.sample(pipe), before)


@pytest.mark.parametrize("strength", [0.8, 0.5])
@pytest.mark.parametrize("name", ["cogvideox", "wan"])
def test_video_to_video_counts_the_evaluations_it_runs(name: str, strength: float) -> None:
    zoo, cls = {
        "cogvideox": (COGVIDEOX, CogVideoXVideoToVideoPipeline),
        "wan": (WAN, WanVideoToVideoPipeline),
    }[name]
    text_to_video = pipe_of(zoo)
    parts = (None, None, None, text_to_video.transformer, text_to_video.scheduler)
    order = list(inspect.signature(cls.__init__).parameters)[1:]
    given = {"transformer": parts[3], "scheduler": parts[4]}
    pipe = quiet(cls(*[given.get(parameter) for parameter in order]))
    arguments = zoo.arguments(steps=30) | {"strength": strength}
    arguments.pop("num_frames", None)

    def sample() -> torch.Tensor:
        return pipe(**arguments | {"generator": torch.Generator().manual_seed(0)}).frames

    before, evaluations = sample(), round(30 * strength)
    with keystep.accelerate(pipe, "fastercache") as session:
        first = sample()
        assert torch.equal(sample(), first)
    assert session.trace.num_evaluations == len(session.trace.rows) == evaluations
    assert session.trace.is_complete
    assert {label for row in session.trace.rows for label in row.skipped} == {"branch[uncond]", "attention"}
    assert session.trace.rows[0].timestep == text_to_video.scheduler.timesteps[30 - evaluations]
    assert torch.equal(sample(), before)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 12, 25])
@pytest.mark.parametrize("name", METHODS)
def test_lengths(name: str, steps: int) -> None:
    """Short runs work and say what they did not do."""
    pipe, method = pipe_of(WAN), METHODS[name]
    if name.startswith("adacache"):
        method = keystep.AdaCache({5.0: 3}, native=steps)
    with keystep.accelerate(pipe, method) as session, may_warn(), pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("warnings.warn", lambda text, *_, **__: said.append(str(text)))
        latents = WAN.sample(pipe, steps=steps)
    trace = session.trace
    assert len(trace.rows) == steps and trace.is_complete
    is_skipping = any(row.skipped for row in trace.rows)
    assert is_skipping != any("nothing was skipped" in text for text in said)
    if not is_skipping:
        assert torch.equal(latents, plain(WAN, steps=steps))
        assert "nothing was skipped" in session.summary()
    if steps < 12 and name in ("fastercache", "fastercache-cfg"):
        assert any("CFG-Cache needs 12 evaluations" in note for note in trace.notes)
    if steps >= 12:
        assert is_skipping


def test_a_long_run() -> None:
    with keystep.accelerate(pipe_of(WAN), "fastercache") as session:
        WAN.sample(pipe_of(WAN), steps=150)
    assert len(session.trace.rows) == 150 and session.trace.count_skips("branch[uncond]") > 60


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_guidance_off_stands_aside_and_says_so(zoo: Zoo) -> None:
    for batch in (1, 2):
        with keystep.accelerate(pipe_of(zoo), "fastercache") as session:
            latents = zoo.sample(pipe_of(zoo), batch=batch, scale=1.0)
        assert latents.shape[0] == batch
        assert session.trace.guided is False
        assert any("branch[uncond] stands aside" in note for note in session.trace.notes)
        assert session.trace.count_skips("attention") > 0
        assert all(row.branches == ("cond",) for row in session.trace.rows)
        assert "guidance off" in session.summary()
    with keystep.accelerate(pipe_of(zoo), METHODS["fastercache-cfg"]):
        with pytest.warns(KeystepWarning, match="stands aside"):
            latents = zoo.sample(pipe_of(zoo), scale=1.0)
        assert torch.equal(latents, plain(zoo, is_guided=False))


def test_samples_of_a_batch_do_not_see_each_other_without_guidance() -> None:
    """Two prompts without guidance: each equals its own run (schedules do not look at the content)."""
    latents = {}
    for batch in (1, 2):
        with keystep.accelerate(pipe_of(WAN), METHODS["fastercache-attention"]):
            arguments = WAN.arguments(2, scale=1.0)
            for key in ("prompt_embeds", "negative_prompt_embeds", "latents"):
                arguments[key] = arguments[key][:batch]
            latents[batch] = pipe_of(WAN)(**arguments).frames
    torch.testing.assert_close(latents[2][:1], latents[1], rtol=2e-4, atol=2e-4)


def test_dynamic_guidance() -> None:
    """The scale changes at every step, but whether there is guidance is known at the first evaluation."""
    call = {"use_dynamic_cfg": True}
    pipe = pipe_of(COGVIDEOX)
    before = COGVIDEOX.sample(pipe, call=call)
    with keystep.accelerate(pipe, NEVER["always"]):
        assert torch.equal(COGVIDEOX.sample(pipe, call=call), before)
    with keystep.accelerate(pipe, "fastercache") as session:
        first = COGVIDEOX.sample(pipe, call=call)
        assert torch.equal(COGVIDEOX.sample(pipe, call=call), first)
    assert session.trace.guided and session.trace.count_skips("branch[uncond]") > 0


@pytest.mark.parametrize("zoo", [LATTE, WAN], ids=lambda zoo: zoo.name)  # CogVideoX's makes one
def test_several_videos_for_one_prompt(zoo: Zoo) -> None:
    pipe, arguments = pipe_of(zoo), zoo.arguments(1)
    name = "num_images_per_prompt" if zoo is LATTE else "num_videos_per_prompt"
    arguments[name] = 2
    arguments["latents"] = torch.randn(2, *zoo.latent, generator=torch.Generator().manual_seed(1))
    before = pipe(**arguments).frames
    with keystep.accelerate(pipe, NEVER["always"]):
        assert torch.equal(pipe(**arguments).frames, before)
    for method in ("fastercache", METHODS["adacache"]):
        with keystep.accelerate(pipe, method) as session:
            latents = pipe(**arguments).frames
        assert latents.shape == before.shape and any(row.skipped for row in session.trace.rows)


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_a_callback_ends_the_generation_early(zoo: Zoo) -> None:
    def stop(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = i == 8
        return {}

    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe, "fastercache") as session:
        fresh = zoo.sample(pipe)
        zoo.sample(pipe, call={"callback_on_step_end": stop}, seed=4)
        assert not session.trace.is_complete and len(session.trace.rows) == 9
        assert "stopped after 9" in session.summary()
        assert torch.equal(zoo.sample(pipe), fresh)
        assert session.trace.is_complete


def test_a_prompt_that_changes_in_mid_run_is_computed_anew() -> None:
    """A callback may hand back other embeddings: nothing of the old prompt is reused for the new one."""
    other = torch.randn(1, 7, 20, generator=torch.Generator().manual_seed(9))

    def change(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": other} if i == 7 else {}

    for name in ("fastercache", "adacache"):
        pipe = pipe_of(WAN)
        with keystep.accelerate(pipe, METHODS[name]) as session:
            first = WAN.sample(pipe, call={"callback_on_step_end": change})
            assert torch.equal(WAN.sample(pipe, call={"callback_on_step_end": change}), first)
        assert session.trace.rows[8].skipped == ()
        assert any("the prompt changed" in note for note in session.trace.notes)
        assert any(row.skipped for row in session.trace.rows[9:])


def test_the_same_prompt_at_another_address() -> None:
    """Callers that make the text anew for each call get addresses as chance will have it."""
    pipe, text = pipe_of(WAN), torch.randn(1, 7, 20)
    with torch.no_grad(), keystep.accelerate(pipe.transformer, METHODS["fastercache-attention"]) as session:
        session.begin(16, False, [900.0 - 50 * k for k in range(16)])
        for k in range(16):
            fresh = text.clone() if k > 8 else text.view(1, 7, 20)
            x = torch.full((1, *WAN.latent), 0.1 * k)
            pipe.transformer(**WAN.inputs(pipe, x, 900.0 - 50 * k, fresh))
            session.step()
    assert session.trace.notes == []
    policy = METHODS["fastercache-attention"].policy("wan", 16)
    assert session.trace.count_skips("attention") == count_skipped(policy, 16, "attention", is_guided=False)


def test_two_transformers_start_afresh_at_the_boundary() -> None:
    """Wan 2.2: what the high-noise expert computed is never reused by the low-noise one."""
    for name in ("fastercache", "adacache"):
        with keystep.accelerate(pipe_of(WAN22), METHODS[name]) as session:
            WAN22.sample(pipe_of(WAN22))
        models = [row.model for row in session.trace.rows]
        assert set(models) == {"transformer", "transformer_2"}
        change = models.index("transformer_2")
        assert session.trace.rows[change].skipped == ()
        assert any(row.skipped for row in session.trace.rows[change:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    pipe = WAN.build()
    pipe.transformer.to(dtype)
    before = WAN.sample(pipe)
    with keystep.accelerate(pipe, NEVER["always"]):
        assert torch.equal(WAN.sample(pipe), before)
    for method in (METHODS["fastercache"], METHODS["adacache+moreg"]):
        with keystep.accelerate(pipe, method) as session:
            latents = WAN.sample(pipe)
        assert latents.dtype == before.dtype and torch.isfinite(latents).all()
        assert any(row.skipped for row in session.trace.rows)


# ------------------------------------------------------------------ rules on real models


def test_mask_is_followed_to_the_letter() -> None:
    letters = "CCCsCssCCsCsssCC"
    for site, how in ((Attention(), Hold()), (Span(), Hold()), (Branch(), FrequencyBands())):
        policy = Policy((Rule(site, Mask(letters), how),))
        with keystep.accelerate(pipe_of(WAN), policy) as session:
            WAN.sample(pipe_of(WAN))
        assert list(decisions(session.trace).values()) == [letters]


def test_a_mask_of_another_length_is_refused_before_any_model_call() -> None:
    """A mask that is too short must not skip the rest of the run, nor one too long shift."""
    calls = []
    handle = pipe_of(WAN).transformer.patch_embedding.register_forward_hook(lambda *_: calls.append(1))
    for letters in ("CCsCs", "CCs" * 8):
        policy = Policy((Rule(Span(), Mask(letters), Hold()),))
        with (
            pytest.raises(ValueError, match="16 letters"),
            keystep.accelerate(pipe_of(WAN), policy),
        ):
            WAN.sample(pipe_of(WAN))
    handle.remove()
    assert calls == []


def test_every_with_fractions() -> None:
    """Fractions of the run that is really made: the same part of it at any length."""
    policy = Policy((Rule(Attention(), Every(2, start=0.25, stop=0.75), Hold()),))
    for steps in (8, 16, 20):
        with keystep.accelerate(pipe_of(WAN), policy) as session:
            WAN.sample(pipe_of(WAN), steps=steps)
        skipped = [row.evaluation for row in session.trace.rows if row.skipped]
        assert skipped == [k for k in range(steps // 4, 3 * steps // 4 + 1) if k % 2]


@pytest.mark.parametrize("layout", ["batched:uncond,cond", "separate:cond,uncond"])
@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_probe_decisions(zoo: Zoo, layout: str) -> None:
    """First-block caching: asked in the middle of the forward; the unconditional call follows."""
    policy = Policy((Rule(Span(1), Below(2.0, RelativeChange(PrefixResidual())), Hold()),))
    latents, trace = accelerated_drive(zoo, policy, layout, batch=2)
    skipped = [row.evaluation for row in trace.rows if row.skipped]
    assert skipped and 1 not in skipped and 16 not in skipped
    for row in trace.rows[1:-1]:
        assert (row.signals["distance"] < 2.0) == bool(row.skipped)
        assert row.decisions["span[1:]"].reason == "measured"
    assert trace.rows[0].signals == {}
    never = Policy((Rule(Span(1), Below(0.0, RelativeChange(PrefixResidual())), Hold()),))
    with pytest.warns(KeystepWarning, match="nothing was skipped"):
        latents, trace = accelerated_drive(zoo, never, layout, batch=2)
    assert torch.equal(latents, drive(zoo, pipe_of(zoo), layout, batch=2))


def test_probes_of_deeper_prefixes() -> None:
    policy = Policy((Rule(Span(2), Below(2.0, RelativeChange(PrefixResidual(2))), Hold()),))
    _, trace = accelerated_drive(WAN, policy, "separate:cond,uncond")
    assert trace.count_skips("span[2:]") > 0


def test_inner_state_stands_still_inside_a_skipped_span() -> None:
    """Attention inside a skipped span is not visited: it neither computes nor ages its controller's phase."""
    span = Rule(Span(), Mask("CCCCssCCssCCCCCC"), Hold())
    inner = Rule(Attention(), Mask("CCCCCCsCsCCsCsCC"), Linear(), max_age=3)
    _, trace = accelerated_drive(WAN, Policy((span, inner)), "separate:cond,uncond")
    letters = decisions(trace)
    assert letters["span"] == "CCCCssCCssCCCCCC"
    assert letters["attention"] == "CCCCsssCssCsCsCC".replace("sssC", "sssC")
    reasons = [row.decisions["attention"].reason for row in trace.rows]
    assert [k + 1 for k, reason in enumerate(reasons) if reason == "inside a skipped span"] == [5, 6, 9, 10]
    assert reasons[6] == "scheduled", "computed at 4, 3 evaluations ago: not too old"


def test_mixing_cfg_cache_with_spans_and_attention() -> None:
    policy = Policy(
        (
            Rule(Branch(), Every(4, start=4), FrequencyBands()),
            Rule(Span(), Every(3, start=5), Hold(), max_age=2),
            Rule(Attention(), Every(2, start=4), Linear(), max_age=2),
        )
    )
    for zoo in (LATTE, COGVIDEOX, WAN):
        with keystep.accelerate(pipe_of(zoo), policy) as session:
            first = zoo.sample(pipe_of(zoo), batch=2)
            assert torch.equal(zoo.sample(pipe_of(zoo), batch=2), first)
        trace = session.trace
        assert all(trace.count_skips(rule.label) for rule in policy.rules)
        for row in trace.rows:  # a stale unconditional history never meets a full evaluation
            if "span" in row.skipped and "branch[uncond]" not in row.skipped:
                computed = [
                    r.evaluation
                    for r in trace.rows[: row.evaluation - 1]
                    if "span" not in r.skipped and "branch[uncond]" not in r.skipped
                ]
                assert row.evaluation - computed[-1] <= 2


# ------------------------------------------------------------------ without a pipeline


def test_bare_transformer_with_begin_and_step() -> None:
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe.transformer, METHODS["fastercache"]) as session:
        first = drive(WAN, pipe, "separate:cond,uncond", session)
        assert torch.equal(drive(WAN, pipe, "separate:cond,uncond", session), first)
        assert len(session.traces) == 2 and session.run is None
        with pytest.warns(KeystepWarning, match="again after the last evaluation"):
            pipe.transformer(**WAN.inputs(pipe, torch.randn(1, *WAN.latent), 5.0, torch.randn(1, 7, 20)))


def test_calls_outside_a_generation() -> None:
    """Before the first generation an error says what to do; after the last one the model computes in full."""
    pipe = pipe_of(WAN)
    call = WAN.inputs(pipe, torch.randn(1, *WAN.latent), 500.0, torch.randn(1, 7, 20))
    expected = pipe.transformer(**call)[0]
    with keystep.accelerate(pipe.transformer, METHODS["fastercache"]) as session:
        with pytest.raises(RuntimeError, match="begin"):
            pipe.transformer(**call)
        drive(WAN, pipe, "separate:cond,uncond", session, is_guided=False)
        with pytest.warns(KeystepWarning):
            assert torch.equal(pipe.transformer(**call)[0], expected)
        session.step()
        assert session.trace.is_complete
    last_is_skipped = Policy((Rule(Attention(), Every(2, phase=1), Hold()),))
    with keystep.accelerate(pipe, last_is_skipped) as session:
        WAN.sample(pipe, scale=1.0)
        assert session.trace.rows[-1].skipped
        with pytest.warns(KeystepWarning):
            assert torch.equal(pipe.transformer(**call)[0], expected)


def test_output_classes_and_positional_arguments() -> None:
    """return_dict and positional calls go through CFG-Cache like keyword calls."""
    pipe = pipe_of(COGVIDEOX)
    model, x = pipe.transformer, torch.randn(2, *COGVIDEOX.latent)
    text, time = torch.randn(2, 7, 20), torch.full((2,), 500.0)
    policy = Policy((Rule(Branch(), Mask("Cs"), FrequencyBands()),))
    with torch.no_grad(), keystep.accelerate(model, policy) as session:
        session.begin(2)
        full = model(x, text, time)
        session.step()
        rebuilt_output = model(x, text, time, return_dict=True)
        session.step()
    assert type(rebuilt_output) is type(full)
    torch.testing.assert_close(rebuilt_output.sample, full.sample, rtol=1e-4, atol=1e-4)


def test_fastercache_options_reach_the_schedule() -> None:
    with keystep.accelerate(pipe_of(WAN), "fastercache", cfg_every=2, attention=False, start=0.1) as session:
        WAN.sample(pipe_of(WAN), steps=20)
    assert session.trace.count_skips("branch[uncond]") > 0 and "attention" not in decisions(session.trace)
    with keystep.accelerate(pipe_of(WAN), FasterCache(cfg=False, attention_every=4)) as session:
        WAN.sample(pipe_of(WAN), steps=30)
    assert "sss" in decisions(session.trace)["attention"]


def test_scale_of_helper() -> None:
    assert scale_of(True) > 1 >= scale_of(False)
