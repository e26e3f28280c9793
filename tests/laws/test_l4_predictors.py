"""L4: predictors are exact on what they claim to be exact on, at any spacing of the steps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from keystep.how import (
    Constant,
    Entry,
    FrequencyBands,
    Gain,
    Hold,
    Linear,
    Measured,
    Moment,
    Predictor,
    Ramp,
    Spacing,
    Taylor,
)
from keystep.methods.fastercache import PRESETS
from keystep.what import PrefixResidual
from keystep.when import Progress

# gaps between computed evaluations, and from the last one to the predicted one
GAPS = st.lists(st.integers(1, 60), min_size=5, max_size=5)
COEFFICIENTS = st.lists(st.floats(-2, 2), min_size=5, max_size=5)


def history(predictor: Predictor, values: list[torch.Tensor], times: list[float]) -> list[Entry]:
    """Entries as the engine makes them."""
    return [
        Entry(Moment(i + 1, time), predictor.keep(value))
        for i, (value, time) in enumerate(zip(values, times, strict=True))
    ]


def polynomial(coefficients: list[float], time: float) -> torch.Tensor:
    x = torch.tensor((time - 500) / 500, dtype=torch.float64)
    return torch.stack(
        [sum((c * x**k for k, c in enumerate(coefficients)), 0 * x) * s for s in (1.0, -0.5, 3.0)]
    )


def times_from(gaps: list[int]) -> list[float]:
    times = [900.0]
    for gap in gaps:
        times.append(times[-1] - gap)
    return times


@given(GAPS, st.floats(-5, 5))
def test_hold_is_exact_on_constants(gaps: list[int], value: float) -> None:
    times, x = times_from(gaps), torch.full((2, 3), value)
    assert torch.equal(Hold().predict(history(Hold(), [x], times[:1]), Moment(9, times[3])), x)


@given(GAPS, COEFFICIENTS)
def test_linear_with_spacing_is_exact_on_straight_lines(gaps: list[int], coefficients: list[float]) -> None:
    times, predictor = times_from(gaps), Linear(Spacing(1.0))
    values = [polynomial(coefficients[:2], time) for time in times[:2]]
    predicted = predictor.predict(history(predictor, values, times[:2]), Moment(3, times[3]))
    torch.testing.assert_close(predicted, polynomial(coefficients[:2], times[3]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", range(5))
@given(gaps=GAPS, coefficients=COEFFICIENTS)
def test_taylor_is_exact_on_polynomials_of_its_degree(
    order: int, gaps: list[int], coefficients: list[float]
) -> None:
    times, predictor = times_from(gaps), Taylor(order, "time")
    known, target = times[: order + 1], times[order + 1]
    values = [polynomial(coefficients[: order + 1], time) for time in known]
    predicted = predictor.predict(history(predictor, values, known), Moment(order + 2, target))
    scale = 1 + max(abs(c) for c in coefficients)
    torch.testing.assert_close(
        predicted, polynomial(coefficients[: order + 1], target), rtol=0, atol=1e-6 * scale * 60**order
    )


@pytest.mark.parametrize("order", range(5))
@given(gaps=GAPS, coefficients=COEFFICIENTS)
def test_taylor_counts_evaluations(order: int, gaps: list[int], coefficients: list[float]) -> None:
    """Exact at any spacing of the computed evaluations, whatever the scheduler's timesteps are."""
    places, predictor = [*itertools.accumulate(gaps, initial=1)], Taylor(order)
    known, target = places[: order + 1], places[order + 1]
    entries = [
        Entry(
            Moment(place, float("nan")), predictor.keep(polynomial(coefficients[: order + 1], float(place)))
        )
        for place in known
    ]
    predicted = predictor.predict(entries, Moment(target, float("nan")))
    scale = 1 + max(abs(c) for c in coefficients)
    torch.testing.assert_close(
        predicted, polynomial(coefficients[: order + 1], float(target)), rtol=0, atol=1e-6 * scale * 60**order
    )


def test_taylor_is_not_exact_one_degree_higher() -> None:
    times = [900.0, 850.0, 720.0, 700.0]
    for order in (0, 1, 2):
        values = [polynomial([0.0] * (order + 1) + [1.0], time) for time in times[: order + 1]]
        predicted = Taylor(order, "time").predict(
            history(Taylor(order), values, times[: order + 1]), Moment(9, times[order + 1])
        )
        truth = polynomial([0.0] * (order + 1) + [1.0], times[order + 1])
        assert (predicted - truth).abs().max() > 1e-4


def test_repeated_timesteps_do_not_divide_by_zero() -> None:
    """Runge-Kutta warm-ups and Heun evaluate twice at one time; the newest value counts."""
    values = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])]
    held = Linear(Spacing()).predict(history(Linear(), values[:2], [800.0, 800.0]), Moment(3, 700.0))
    assert torch.equal(held, values[1])
    taylor = Taylor(2, "time").predict(history(Taylor(2), values, [800.0, 700.0, 700.0]), Moment(4, 600.0))
    torch.testing.assert_close(taylor, torch.tensor([7.0]))


@given(st.integers(1, 100), st.floats(0, 2), st.floats(0, 2))
def test_linear_weights(evaluation: int, first: float, last: float) -> None:
    older, newest = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 5.0])
    ramp = Ramp(7, first, 30, last)
    for weight in (Constant(first), ramp):
        predictor = Linear(weight)
        w = weight.at((), Moment(evaluation, 0.0))
        predicted = predictor.predict(
            history(predictor, [older, newest], [9.0, 8.0]), Moment(evaluation, 7.0)
        )
        torch.testing.assert_close(predicted, newest + w * (newest - older))
    expected = max(0.0, first + (last - first) * (evaluation - 7) / 23)
    assert ramp.at((), Moment(evaluation, 0.0)) == pytest.approx(expected)


ENHANCED = FrequencyBands(Gain(1.2), Gain(1.1))


@pytest.mark.parametrize("predictor", [Hold(), Linear(), Linear(Constant(0.4)), Taylor(2), ENHANCED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_prediction_leaves_stored_tensors_alone(predictor: Predictor, dtype: torch.dtype) -> None:
    values = [torch.randn(2, 4, 6, 5).to(dtype) for _ in range(predictor.num_entries)]
    entries = history(predictor, values, [900.0 - 10 * i for i in range(len(values))])
    before = [[value.clone() for value in entry.values] for entry in entries]
    results = [predictor.predict(entries, Moment(k, 900.0 - 10 * k)) for k in (4, 5, 4)]
    assert torch.equal(results[0], results[2]), "a pure function of history and moment"
    for entry, kept in zip(entries, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(entry.values, kept, strict=True))
    expected = torch.float32 if isinstance(predictor, FrequencyBands) else dtype
    assert results[0].dtype == expected and results[0].shape == values[0].shape


# ------------------------------------------------------------------ CFG-Cache against a full transform

SIZES = [(61, 107), (9, 5), (8, 8), (4, 4), (16, 6), (1, 1), (1, 7), (60, 90)]


def full_transform(c: torch.Tensor, d: torch.Tensor, low: float, high: float, radius: int) -> torch.Tensor:
    """The reference's arithmetic: centred spectra, masks with integer indices, complex throughout."""
    height, width = c.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mask = ((rows - height // 2) ** 2 + (columns - width // 2) ** 2 <= radius**2).to(torch.float64)
    spectrum = torch.fft.fftshift(torch.fft.fft2(c.double()), dim=(-2, -1))
    difference = torch.fft.fftshift(torch.fft.fft2(d.double()), dim=(-2, -1))
    spectrum = spectrum + low * mask * difference + high * (1 - mask) * difference
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real.float()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("radius", [0.2, 0.0, 0.5])
def test_frequency_bands_equal_the_full_transform(size: tuple[int, int], radius: float) -> None:
    generator = torch.Generator().manual_seed(0)
    c, u = torch.randn(2, 2, 3, *size, generator=generator)
    bands = FrequencyBands(Gain(1.15), Gain(1.25), radius)
    low, high = bands.keep(u - c)
    assert low.dtype == high.dtype == torch.float32
    torch.testing.assert_close(low + high, u - c, rtol=0, atol=5e-6)
    now = Moment(14, 0.0)
    predicted = c + bands.predict([Entry(Moment(11, 0.0), (low, high))], now)
    pixels = int(round(radius * min(size), 6))
    expected = full_transform(c, u - c, 1.15**3, 1.25**3, pixels)
    torch.testing.assert_close(predicted, expected, rtol=0, atol=5e-6 * expected.abs().max().item())


def test_without_enhancement_the_split_does_nothing() -> None:
    delta = torch.randn(2, 3, 9, 5)
    bands = FrequencyBands()
    predicted = bands.predict([Entry(Moment(3, 0.0), bands.keep(delta))], Moment(7, 0.0))
    torch.testing.assert_close(predicted, delta, rtol=0, atol=5e-6)


def test_radius_follows_integer_division() -> None:
    """min(H, W) // 5, where 0.2 * H in floating point may land on either side."""
    for side in range(1, 200):
        delta = torch.randn(1, side, side + 3, generator=torch.Generator().manual_seed(side))
        low, _ = FrequencyBands().keep(delta)
        rows = torch.fft.fftfreq(side) * side
        columns = torch.arange((side + 3) // 2 + 1)
        disc = rows[:, None] ** 2 + columns[None] ** 2 <= (side // 5) ** 2 + 1e-3
        expected = torch.fft.irfft2(torch.fft.rfft2(delta) * disc, s=delta.shape[-2:])
        torch.testing.assert_close(low, expected, rtol=0, atol=1e-5)


def test_frequency_bands_do_not_change_with_the_grids_they_saw_before() -> None:
    """The cached masks are told apart by size, radius and device."""
    one, other = torch.randn(1, 10, 20), torch.randn(1, 20, 10)
    first = FrequencyBands(radius=0.5).keep(one)[0]
    FrequencyBands(radius=0.1).keep(one)
    FrequencyBands(radius=0.5).keep(other)
    assert torch.equal(FrequencyBands(radius=0.5).keep(one)[0], first)


# Weights by hand: the factor compounds over consecutive rebuilt evaluations inside its gate.
# (preset, refresh, evaluation, low, high)
WEIGHTS = [
    ("opensora", 11, 12, 1.15, 1.0),
    ("opensora", 11, 13, 1.3225, 1.0),
    ("opensora", 11, 14, 1.520875, 1.0),
    ("opensora", 15, 19, 1.15**4, 1.0),
    ("opensora", 20, 21, 1.15, 1.15),
    ("opensora", 20, 24, 1.74900625, 1.74900625),
    ("opensora", 25, 26, 1.0, 1.15),
    ("opensora", 25, 29, 1.0, 1.74900625),
    ("opensora-plan", 120, 125, 1.61051, 1.0),
    ("opensora-plan", 126, 130, 1.4641, 1.0),
    ("opensora-plan", 126, 131, 1.4641, 1.2),
    ("opensora-plan", 132, 137, 1.0, 2.48832),
    ("latte", 40, 44, 1.4641, 1.0),
    ("latte", 45, 46, 1.0, 1.1),
    ("latte", 45, 49, 1.0, 1.4641),
    ("cogvideox", 25, 29, 1.4641, 1.0),
    ("cogvideox", 30, 31, 1.1, 1.1),
    ("cogvideox", 35, 39, 1.4641, 1.4641),
    ("cogvideox", 40, 41, 1.0, 1.1),
    ("vchitect", 55, 59, 1.21550625, 1.0),
    ("vchitect", 60, 64, 1.21550625, 1.4641),
    ("vchitect", 75, 79, 1.21550625, 1.4641),
    ("vchitect", 80, 84, 1.0, 1.4641),
    ("mochi", 46, 50, 1.74900625, 2.44140625),
    ("mochi", 26, 30, 1.74900625, 1.0),
    ("mochi", 51, 52, 1.0, 1.25),
]


@pytest.mark.parametrize(("name", "refreshed", "evaluation", "low", "high"), WEIGHTS)
def test_effective_weights(name: str, refreshed: int, evaluation: int, low: float, high: float) -> None:
    preset = PRESETS[name]
    assert preset.low.at(refreshed, evaluation) == pytest.approx(low)
    assert preset.high.at(refreshed, evaluation) == pytest.approx(high)


@given(st.integers(1, 60), st.integers(0, 8), st.floats(0.5, 2), st.integers(1, 50), st.integers(1, 50))
def test_gain_is_the_product_over_its_gate(
    refresh: int, skips: int, rate: float, start: int, stop: int
) -> None:
    gain, product = Gain(rate, start, stop), 1.0
    for k in range(refresh + 1, refresh + skips + 1):
        product *= rate if start <= k <= stop else 1.0
    assert gain.at(refresh, refresh + skips) == pytest.approx(product)
    assert replace(gain, cap=1.2).at(refresh, refresh + skips) == pytest.approx(min(1.2, product))
    flat = replace(gain, accumulates=False).at(refresh, refresh + skips)
    is_open = skips > 0 and start <= refresh + skips <= stop
    assert flat == pytest.approx(rate if is_open else 1.0)


def test_a_measured_weight_goes_as_far_as_the_probe_has() -> None:
    """The stack moves as its probe does: 1.3 steps from the older value are met exactly."""
    linear = Linear(Measured(Progress(PrefixResidual())))
    older, step = torch.randn(2, 4, 3)
    entries = history(linear, [older, older + step], [900.0, 800.0])

    def at(progress: dict[str, float]) -> torch.Tensor:
        return linear.predict(entries, Moment(4, 700.0, progress))

    torch.testing.assert_close(at({"progress": 1.3}), older + 1.3 * step)
    torch.testing.assert_close(at({"progress": 9.0}), older + 1.5 * step)
    torch.testing.assert_close(at({"progress": 0.2}), older + step)
    torch.testing.assert_close(at({}), older + step)
    assert linear.signals == (Progress(PrefixResidual()),) and Linear().signals == ()
