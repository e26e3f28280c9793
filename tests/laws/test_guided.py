"""The guided output as a site: the method auto, and any other policy on it, on every kind of scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import schedulers
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import nn

import keystep
from keystep import Policy, Rule
from keystep.engine import stream
from keystep.engine.measure import Measurement
from keystep.how import Damped, Hold
from keystep.methods import Auto
from keystep.solver import step
from keystep.what import Guided, Span
from keystep.when import Always, ErrorControl, Every, Mask, Paced, Window
from tests.laws.instruments import may_warn
from tests.matrix import pipe_of
from tests.zoo import COGVIDEOX, LATTE, OPENSORA, STEPS, WAN, WAN22, Zoo

pytestmark = pytest.mark.filterwarnings("ignore:__array__", "ignore:.*scale_model_input")  # of diffusers

SOME = (LATTE, COGVIDEOX, WAN, WAN22, OPENSORA)
LETTERS = "CCsCssCsssCsCssC"
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
# Schedulers beside those of the zoo, on Wan or Latte: name -> (zoo, class, configuration).
SCHEDULERS: dict[str, tuple[Zoo, str, dict[str, Any]]] = {
    "unipc": (WAN, "UniPCMultistepScheduler", FLOW),
    "dpm": (WAN, "DPMSolverMultistepScheduler", FLOW),
    "heun": (LATTE, "HeunDiscreteScheduler", {}),
    "euler": (LATTE, "EulerDiscreteScheduler", {}),
    "ancestral": (LATTE, "EulerAncestralDiscreteScheduler", {}),
    "pndm": (LATTE, "PNDMScheduler", {}),
    "ddpm": (LATTE, "DDPMScheduler", {"clip_sample": False}),
    "v": (LATTE, "DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
    "x0": (LATTE, "DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
}


def policy(letters: str = LETTERS, *, correct: bool = True, how: Any = None) -> Policy:
    return Policy((Rule(Guided(correct), Mask(letters), how or Damped()),))


def with_scheduler(name: str) -> tuple[Zoo, Any]:
    zoo, cls, config = SCHEDULERS[name]
    pipe = zoo.build()
    pipe.scheduler = getattr(schedulers, cls)(**config)
    return zoo, pipe


@pytest.mark.parametrize("zoo", SOME, ids=lambda zoo: zoo.name)
def test_computing_everything_is_the_plain_pipeline(zoo: Zoo) -> None:
    pipe = pipe_of(zoo)
    plain = zoo.sample(pipe)
    with keystep.accelerate(pipe, Policy((Rule(Guided(), Always(), Damped()),))):
        assert torch.equal(zoo.sample(pipe), plain)
    assert torch.equal(zoo.sample(pipe), plain)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler(name: str) -> None:
    """Nothing skipped, nothing changed; skipping is repeatable, near, and leaves nothing behind."""
    zoo, pipe = with_scheduler(name)
    plain = zoo.sample(pipe)
    with keystep.accelerate(pipe, Policy((Rule(Guided(), Always(), Damped()),))):
        assert torch.equal(zoo.sample(pipe), plain)
    with keystep.accelerate(pipe, "auto", speedup=2.0) as session:
        first, second = zoo.sample(pipe), zoo.sample(pipe)
    assert torch.equal(first, second) and not torch.equal(first, plain)
    assert session.trace is not None
    assert len(session.trace.key_steps) == round(session.trace.num_evaluations / 2)
    assert not session.trace.notes
    assert torch.equal(zoo.sample(pipe), plain)


@pytest.mark.parametrize("zoo", SOME, ids=lambda zoo: zoo.name)
def test_closed_form_is_taking_the_steps_again(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe, policy()):
        closed = zoo.sample(pipe)
    monkeypatch.setattr(stream, "find_response", lambda *args: None)
    with keystep.accelerate(pipe, policy()):
        again = zoo.sample(pipe)
    with keystep.accelerate(pipe, policy(correct=False)):
        uncorrected = zoo.sample(pipe)
    assert torch.allclose(closed, again, atol=2e-4 * again.abs().max().item())
    assert (closed - uncorrected).abs().max() > 100 * (closed - again).abs().max()


def test_noise_of_stochastic_samplers_cancels() -> None:
    """The same seed draws the same noise, accelerated or not, and from nobody else's generator."""
    zoo, pipe = with_scheduler("ancestral")
    zoo.sample(pipe)
    plain = torch.rand(3)
    zoo.sample(pipe)
    with keystep.accelerate(pipe, policy()):
        torch.manual_seed(5)
        first, drawn = zoo.sample(pipe), torch.rand(3)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(3))
        assert torch.equal(zoo.sample(pipe), first)
    assert plain.shape == drawn.shape


def test_a_scheduler_that_clips_is_not_corrected_in_closed_form() -> None:
    pipe = LATTE.build()
    pipe.scheduler = DDIMScheduler(clip_sample=True)
    with keystep.accelerate(pipe, policy()) as session:
        LATTE.sample(pipe)
    assert session.trace is not None and session.trace.is_complete


def test_cogvideox_solver_goes_without_correction_and_says_so() -> None:
    pipe = COGVIDEOX.build()
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    with keystep.accelerate(pipe, policy()) as session:
        COGVIDEOX.sample(pipe)
    assert session.trace is not None
    assert any("CogVideoXDPMScheduler" in note for note in session.trace.notes)


def test_a_scheduler_that_cannot_be_read_is_named() -> None:
    pipe = WAN.build()
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(ValueError, match="EDMEulerScheduler"), keystep.accelerate(pipe, "auto"):
        WAN.sample(pipe)


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0, 4.0])
def test_budget_is_met(speedup: float) -> None:
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, "auto", speedup=speedup) as session:
        WAN.sample(pipe, steps=24)
        WAN.sample(pipe, steps=24, seed=1)
    assert [len(trace.key_steps) for trace in session.traces] == [round(24 / speedup)] * 2


def test_tolerance_orders_compute() -> None:
    pipe, counts = pipe_of(WAN), []
    for tolerance in (0.001, 0.1, 10.0):
        with may_warn(), keystep.accelerate(pipe, "auto", tolerance=tolerance) as session:
            WAN.sample(pipe, steps=24)
        assert session.trace is not None
        counts.append(len(session.trace.key_steps))
    assert counts[0] > counts[1] > counts[2] >= 2


def test_the_default_mode_reads_nothing_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_at_reads = []
    read = Measurement.pairs

    def note(self: Measurement) -> Any:
        assert session.trace is not None
        rows_at_reads.append(len(session.trace.rows))
        return read(self)

    monkeypatch.setattr(Measurement, "pairs", note)
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, "auto") as session:
        WAN.sample(pipe)
    assert rows_at_reads and set(rows_at_reads) == {STEPS}


def test_a_tolerance_reads_corrections_and_forecasts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    update = ErrorControl.update

    def note(self: ErrorControl, state: Any, evaluation: int, is_computed: bool, measured: Any) -> Any:
        seen.append(set(measured))
        return update(self, state, evaluation, is_computed, measured)

    monkeypatch.setattr(ErrorControl, "update", note)
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, "auto", tolerance=0.2):
        WAN.sample(pipe)
    assert {"forecast error"} in seen  # nothing was skipped before it
    assert {"forecast error", "correction"} in seen


def test_memory_is_a_few_latents() -> None:
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, "auto") as session:
        latent = WAN.sample(pipe)
    assert session.trace is not None
    assert 0 < session.trace.peak_cache_bytes <= 3.1 * latent.float().nbytes


def test_refined_runs_take_more_steps_at_the_same_number_of_computed_ones() -> None:
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, "auto", quality="converged", speedup=2.0) as session:
        WAN.sample(pipe)
    assert session.trace is not None
    assert session.trace.num_evaluations == 4 * STEPS and len(session.trace.key_steps) == STEPS // 2


def test_a_model_without_a_spec_will_do() -> None:
    pipe, known = WAN.build(), WAN.build().transformer

    class Unheard(nn.Module):
        """Its blocks cannot be found."""

        config, dtype, device = known.config, known.dtype, known.device

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return known(*args, **kwargs)

        cache_context = staticmethod(known.cache_context)

    pipe.transformer = Unheard()
    with pytest.raises(ValueError, match="Unheard"), keystep.accelerate(pipe, "adacache"):
        pass
    with keystep.accelerate(pipe, "auto", speedup=2.0) as session:
        found = WAN.sample(pipe)
    assert session.trace is not None and len(session.trace.key_steps) == STEPS // 2
    assert found.isfinite().all()


@pytest.mark.parametrize("is_wrapped", [False, True], ids=["compile()", "torch.compile"])
def test_a_model_compiled_as_a_whole(is_wrapped: bool) -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, "auto", speedup=2.0):
        expected = WAN.sample(pipe)
    if is_wrapped:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    else:
        pipe.transformer.compile(backend="eager")
    with keystep.accelerate(pipe, "auto", speedup=2.0) as session:
        found = WAN.sample(pipe)
    assert session.trace is not None and len(session.trace.key_steps) == STEPS // 2
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speedup": 0.5}, "auto.speedup: given 0.5"),
        ({"speedup": 12.0}, "1 to 8"),
        ({"tolerance": -1.0}, "auto.tolerance"),
        ({"quality": "best"}, "high, balanced, fast, converged"),
        ({"speedup": 2.0, "tolerance": 0.1}, "give one of them"),
        ({"tolerance": 0.1, "quality": "converged"}, "give one of them"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    pipe = pipe_of(WAN)
    with pytest.raises(ValueError, match=message), keystep.accelerate(pipe, "auto", **options):
        WAN.sample(pipe)


def test_it_goes_alone_and_needs_a_pipeline() -> None:
    with pytest.raises(ValueError, match="goes alone"):
        Policy((Rule(Guided(), Every(2), Hold()), Rule(Span(), Every(2), Hold())))
    with (
        pytest.raises(ValueError, match="give the pipeline"),
        keystep.accelerate(WAN.build().transformer, "auto"),
    ):
        pass


@pytest.mark.parametrize("when", [Paced(0.5), ErrorControl(0.2)], ids=["budget", "tolerance"])
def test_the_damping_is_fitted_on_line(when: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    keep = Damped.keep

    def note(self: Damped, delta: torch.Tensor, history: Any = (), now: Any = None) -> Any:
        kept = keep(self, delta, history, now)
        seen.append((len(history), kept[1].clone()))
        return kept

    monkeypatch.setattr(Damped, "keep", note)
    pipe = pipe_of(WAN)
    with keystep.accelerate(pipe, Policy((Rule(Guided(), when, Damped()),))):
        WAN.sample(pipe)
    assert [count for count, _ in seen[:4]] == [0, 1, 2, 2]
    assert not torch.equal(seen[1][1], seen[-1][1])


def test_probes_draw_from_nobody() -> None:
    """Without a generator of its own a sampler draws from the global one: nothing else may."""
    zoo, pipe = with_scheduler("ancestral")
    arguments = zoo.arguments() | {"generator": None}

    def sample() -> torch.Tensor:
        torch.manual_seed(7)
        with torch.no_grad():
            return pipe(**arguments).frames

    plain = sample()
    with keystep.accelerate(pipe, Policy((Rule(Guided(), Always(), Damped()),))):
        assert torch.equal(sample(), plain)
    with keystep.accelerate(pipe, policy()):
        corrected = sample()
    with keystep.accelerate(pipe, policy(correct=False)):
        uncorrected = sample()
    assert (corrected - plain).norm() < 1.2 * (uncorrected - plain).norm()


@pytest.mark.parametrize("tolerance", [0.05, 0.001])
def test_a_tolerance_survives_another_expert(tolerance: float) -> None:
    pipe = pipe_of(WAN22)
    with may_warn(), keystep.accelerate(pipe, "auto", tolerance=tolerance) as session:
        WAN22.sample(pipe)
    assert session.trace is not None and session.trace.is_complete


@pytest.mark.parametrize("is_in_place", [False, True])
def test_what_a_callback_does_in_a_gap_stays_done(is_in_place: bool) -> None:
    zoo, pipe = with_scheduler("dpm")

    def shift(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step != 3:
            return {}
        return {"latents": values["latents"].add_(5.0) if is_in_place else values["latents"] + 5.0}

    call = {"callback_on_step_end": shift}
    plain = zoo.sample(pipe, call=call)
    with keystep.accelerate(pipe, policy("CCCsssCCCCCCCCCC")):
        found = zoo.sample(pipe, call=call)
    assert (found - plain).norm() < 0.5 * plain.norm()


def test_arguments_by_position_and_guidance_that_sets_in_late() -> None:
    pipe = WAN.build()
    config, steps = pipe.transformer.config, 6
    latent, text = torch.randn(1, config.in_channels, 2, 8, 8), torch.randn(1, 4, config.text_dim)
    with torch.no_grad(), keystep.accelerate(pipe, policy("CsCs")) as session:
        pipe.scheduler.set_timesteps(steps)
        pipe.scheduler.set_begin_index(2)
        for index, time in enumerate(pipe.scheduler.timesteps[2:]):
            outputs = [pipe.transformer(latent, time.expand(1), text) for _ in range(1 if index < 3 else 2)]
            latent = pipe.scheduler.step(outputs[-1][0], time, latent, return_dict=False)[0]
    assert session.trace is not None and session.trace.is_complete
    assert session.trace.num_evaluations == steps - 2
    assert not outputs[-1][0].any(), "the call that guidance adds is not made where evaluations are skipped"


def test_a_refined_run_cannot_begin_in_the_middle() -> None:
    pipe = WAN.build()
    pipe.scheduler.set_begin_index(4)
    with pytest.raises(ValueError, match="strength"), keystep.accelerate(pipe, "auto", quality="converged"):
        pipe.scheduler.set_timesteps(STEPS)
        pipe.scheduler.set_begin_index(4)
        pipe.transformer(hidden_states=torch.zeros(1), timestep=torch.zeros(1))


def test_estimated_error_follows_the_budget() -> None:
    pipe, errors = pipe_of(WAN), []
    for speedup in (1.5, 3.0):
        with keystep.accelerate(pipe, "auto", speedup=speedup) as session:
            WAN.sample(pipe, steps=24)
        assert session.trace is not None and session.trace.estimated_error is not None
        errors.append(session.trace.estimated_error)
        assert "estimated error" in session.summary()
    assert 0 < errors[0] < errors[1]


def test_a_budget_is_met_over_another_expert() -> None:
    pipe = pipe_of(WAN22)
    calls: list[str] = []
    names = ("transformer", "transformer_2")
    handles = [
        getattr(pipe, name).register_forward_hook(lambda *_, n=name: calls.append(n)) for name in names
    ]
    WAN22.sample(pipe)
    plain = len(calls)
    assert set(calls) == {*names}
    calls.clear()
    with keystep.accelerate(pipe, "auto", speedup=4.0) as session:
        WAN22.sample(pipe)
    for handle in handles:
        handle.remove()
    assert session.trace is not None and len(session.trace.key_steps) == STEPS // 4
    assert len(calls) == plain // 4, "the expert that takes over in a gap is not called there"


@pytest.mark.parametrize("name", ["unipc", "ancestral", "ddpm"])
def test_the_generators_of_the_process_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may draw from them at any time; a seed set meanwhile would repeat its noise."""

    def refuse(*_: Any) -> None:
        raise AssertionError("seeded for all")

    monkeypatch.setattr(step, "_seed", refuse)
    monkeypatch.setattr(torch.random, "fork_rng", refuse)
    zoo, pipe = with_scheduler(name)
    with keystep.accelerate(pipe, "auto") as session:
        zoo.sample(pipe)
    assert session.trace is not None and not session.trace.notes


def test_windows_of_timesteps_hold_on_the_guided_output() -> None:
    when = Window(2, above=100, below=850)
    with keystep.accelerate(pipe_of(WAN), Policy((Rule(Guided(), when, Damped()),))) as session:
        WAN.sample(pipe_of(WAN))
    assert session.trace is not None
    skipped = [row.timestep for row in session.trace.rows if row.skipped]
    assert skipped and all(100 < time < 850 for time in skipped)


def test_noise_that_nobody_tells_is_asked_for() -> None:
    transformer = WAN.build().transformer
    rule = Rule(Span(), Paced(0.5), Hold())
    with (
        keystep.accelerate(transformer, Policy((rule,))) as session,
        pytest.raises(ValueError, match=r"noises: given 0 for 16 evaluations"),
    ):
        session.begin(16, times=range(16, 0, -1))


def test_a_tolerance_that_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"auto\.correct"):
        Auto(tolerance=0.1, correct=False)
    pipe = COGVIDEOX.build()
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="give a speedup"), keystep.accelerate(pipe, "auto", tolerance=0.1):
        COGVIDEOX.sample(pipe)


def test_taking_steps_again_holds_a_few_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each step of a long gap."""
    zoo, pipe = with_scheduler("unipc")
    sizes = []
    forecast = stream.Stream._forecast

    def note(self: stream.Stream, *args: Any) -> Any:
        call = forecast(self, *args)
        sizes.append(sum(kept.sample.numel() + kept.output.numel() for kept, _ in self._skipped))
        return call

    monkeypatch.setattr(stream.Stream, "_forecast", note)
    with keystep.accelerate(pipe, "auto", speedup=4.0):
        zoo.sample(pipe)
    assert sizes and max(sizes) == 0
