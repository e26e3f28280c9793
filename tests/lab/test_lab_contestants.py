"""The grid is complete, and every rival attaches to a real pipeline and leaves it as it was."""

import pytest
import torch

import keystep
from keystep.lab import cache_dit, diffusers_hooks, grid, solvers
from keystep.lab.contestant import Bench
from keystep.lab.placed import placed_by_others
from keystep.lab.run import choose_contestants
from keystep.lab.sample import count, generate
from keystep.lab.shapes import random_subjects
from keystep.methods import METHODS, build
from keystep.methods.cfg import CFG

STEPS = 10
pytestmark = pytest.mark.filterwarnings("ignore::keystep.engine.session.KeystepWarning")
OTHERS = [*diffusers_hooks.hooks(), *cache_dit.adapters(), *solvers.fewer_steps()]


@pytest.fixture(scope="module", params=["cogvideox-narrow", "wan-narrow"])
def bench(request):
    subject = random_subjects()[request.param]
    return Bench(subject, subject.load(), STEPS)


def make(bench, contestant):
    with contestant.attach(bench):
        return count(bench.pipe, bench.call("a", 0, contestant.count_steps(bench)))


def pick(contestants, method, **knobs):
    words = ", ".join(f"{key}={value}" for key, value in knobs.items()) or "default"
    return next(c for c in contestants if (c.name.method, c.name.setting) == (method, words))


def test_names_are_different_and_every_curve_has_one_default():
    contestants = [*grid.own_methods(), *grid.never_skipping(), *OTHERS]
    names = [contestant.name for contestant in contestants]
    assert len(set(names)) == len(names)
    for family in {name.family for name in names}:
        num_defaults = sum(c.is_default for c in contestants if c.name.family == family)
        is_combined = family.endswith(CFG) or " on " in family
        assert num_defaults == (0 if is_combined else 1)


def test_every_method_of_the_registry_is_measured():
    assert {sweep.method for sweep in grid.SWEEPS.values()} <= set(METHODS)
    measured = {contestant.name.method for contestant in grid.own_methods()}
    assert set(METHODS) <= measured


@pytest.mark.parametrize("name", grid.SWEEPS)
def test_every_setting_is_one_that_the_method_takes(name):
    sweep = grid.SWEEPS[name]
    made = [build(sweep.method, **sweep.fixed, **options) for options in sweep.settings]
    assert len(set(map(repr, made))) == len(made)


def test_auto_is_placed_where_others_compute(bench):
    contestants = {str(c.name): c for c in placed_by_others()}
    plain = count(bench.pipe, bench.call("a", 0))
    made = make(bench, contestants["keystep: auto on every k-th (k=2)"])
    computed = [k + 1 for k, flops in enumerate(made.step_flops) if flops == max(plain.step_flops)]
    odd = range(1, bench.num_steps + 1, 2)
    assert computed == sorted({*odd, bench.num_steps})
    with keystep.accelerate(bench.pipe, "easycache", threshold=0.2) as session:
        generate(bench.pipe, bench.call(bench.subject.development_prompts[0], 0))
    made = make(bench, contestants["keystep: auto on easycache (threshold=0.2)"])
    computed = [flops == max(plain.step_flops) for flops in made.step_flops]
    assert computed == [not row.skipped for row in session.trace.rows]


@pytest.mark.parametrize("contestant", grid.never_skipping(), ids=lambda c: c.name.method)
def test_what_never_skips_never_skips(bench, contestant):
    plain = count(bench.pipe, bench.call("a", 0))
    made = make(bench, contestant)
    assert made.flops == plain.flops
    assert torch.equal(made.frames, plain.frames)


@pytest.mark.parametrize(
    ("method", "knobs"),
    [("PAB", {"spatial": 3}), ("MagCache", {}), ("TaylorSeer-lite", {}), ("TaylorSeer, attention named", {})],
)
def test_diffusers_hooks_skip_and_go(bench, method, knobs):
    plain = count(bench.pipe, bench.call("a", 0))
    made = make(bench, pick(OTHERS, method, **knobs))
    assert made.flops < 0.95 * plain.flops
    assert torch.equal(generate(bench.pipe, bench.call("a", 0)), plain.frames)


def test_documented_patterns_of_taylorseer_match_nothing(bench):
    plain = count(bench.pipe, bench.call("a", 0))
    assert torch.equal(make(bench, pick(OTHERS, "TaylorSeer")).frames, plain.frames)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_better_solvers_reach_what_the_sampler_reaches(bench, solver):
    fine = generate(bench.pipe, bench.call("a", 0, 8 * STEPS))
    before = bench.pipe.scheduler
    made = make(bench, next(c for c in OTHERS if (c.name.method, c.share) == (solver, 0.5)))
    assert bench.pipe.scheduler is before
    assert len(made.step_flops) == STEPS // 2
    assert (made.frames - fine).norm() < 0.5 * fine.norm()  # the same noise, hence nearly the same video


def test_windows_cover_the_same_part_of_a_shifted_run():
    subject = random_subjects()["wan-narrow"]
    bench = Bench(subject, subject.load(), STEPS)
    bench.pipe.scheduler.set_timesteps(STEPS)
    low, high = diffusers_hooks.cover(bench, (100, 800))
    inside = [low < timestep < high for timestep in bench.pipe.scheduler.timesteps.tolist()]
    assert inside == [False] * 2 + [True] * 7 + [False]


def test_cache_dit_is_left_out_with_a_word_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(cache_dit, "is_installed", lambda: False)
    contestants, notes = choose_contestants(["adacache"], ["cache-dit", "diffusers"])
    assert {contestant.name.source for contestant in contestants} == {"keystep", "diffusers"}
    assert notes == [cache_dit.MISSING]


@pytest.mark.skipif(not cache_dit.is_installed(), reason="cache-dit is not installed")
def test_cache_dit_skips_and_goes(bench):
    plain = count(bench.pipe, bench.call("a", 0))
    made = make(bench, pick(OTHERS, "DBCache, first block", threshold=0.6))
    assert made.flops < 0.9 * plain.flops
    assert torch.equal(generate(bench.pipe, bench.call("a", 0)), plain.frames)
