"""L5: fewer skips never increase the error; the error falls with the step as the order says."""

from __future__ import annotations

import pytest
import torch

import keystep
from keystep import Policy, Rule
from keystep.how import Hold, Linear, Predictor, Spacing, Taylor
from keystep.what import Attention, Span
from keystep.when import Every
from tests.laws import fake


def smooth(text: torch.Tensor, time: torch.Tensor, block: int) -> torch.Tensor:
    """A curved feature: no predictor here is exact on it."""
    return torch.sin(3 * time + text) + 0.3 * torch.cos(5 * time + block)


def integrate(steps: int, policy: Policy | None) -> float:
    """Euler from time 1 to 0 of x' = model(time), guidance off; the mean of x at 0."""
    model = fake.Fake(smooth).double()
    times = [1 - k / steps for k in range(steps)]

    def loop(session: keystep.Session | None) -> float:
        total = 0.0
        if session is not None:
            session.begin(steps, guided=False, times=times)
        for time in times:
            total += fake.evaluate(model, "batched:uncond,cond", 1, time, guided=False)["cond"].mean().item()
            if session is not None:
                session.step()
        return total / steps

    if policy is None:
        return loop(None)
    with keystep.accelerate(model, policy, spec=fake.SPEC) as session:
        return loop(session)


def error(steps: int, period: int, how: Predictor, site: Span | Attention) -> float:
    """Against the plain run of the same sampler: what skipping alone costs."""
    when = Every(period, start=how.num_entries + 1, phase=how.num_entries)
    return abs(integrate(steps, Policy((Rule(site, when, how),))) - integrate(steps, None))


PREDICTORS = {"hold": Hold(), "linear": Linear(Spacing()), "taylor2": Taylor(2)}


@pytest.mark.parametrize("site", [Span(), Attention()], ids=["span", "attention"])
@pytest.mark.parametrize("name", PREDICTORS)
def test_fewer_skips_never_increase_the_error(name: str, site: Span | Attention) -> None:
    errors = [error(120, 2**i, PREDICTORS[name], site) if i else 0.0 for i in range(4)]
    assert errors == sorted(errors)
    assert errors[0] == 0.0 < errors[1]


@pytest.mark.parametrize(("name", "order"), [("hold", 1), ("linear", 2), ("taylor2", 3)])
def test_order_of_convergence(name: str, order: int) -> None:
    """Halving the step divides the error by 2 ** order."""
    coarse, fine = (error(n, 3, PREDICTORS[name], Span()) for n in (90, 180))
    assert 0.8 * 2**order < coarse / fine < 1.25 * 2**order


def test_a_better_predictor_makes_a_smaller_error() -> None:
    errors = [error(96, 3, PREDICTORS[name], Span()) for name in ("taylor2", "linear", "hold")]
    assert errors == sorted(errors) and 10 * errors[0] < errors[2]
