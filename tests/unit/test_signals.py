"""Signals: sums that calls, samples and ranks can add, and the numbers made of them."""

from __future__ import annotations

import pytest
import torch

from keystep.engine.measure import Measurement
from keystep.how import Hold
from keystep.policy import Rule
from keystep.what import AttentionResidual, PrefixResidual, RestResidual, Span
from keystep.when import Every, MotionRatio, Progress, RelativeChange
from keystep.when.signal import absolute_sum, ratio

RULE = Rule(Span(), Every(2), Hold())


def begin(
    signal: RelativeChange | MotionRatio,
    new: torch.Tensor,
    old: torch.Tensor | None,
    num_frames: int,
    samples: int,
) -> Measurement:
    previous = () if old is None else (old,)
    return Measurement.begin(RULE, signal, signal.probes[0], new, previous, num_frames, samples)


def read(measurements: list[Measurement]) -> dict[str, float]:
    return {name: value for _, name, value in Measurement.read_all(measurements)}


def test_ratio_of_nothing() -> None:
    assert ratio(0.0, 0.0) == 0.0
    assert ratio(1.0, 0.0) == float("inf")
    assert ratio(float("nan"), 1.0) != ratio(float("nan"), 1.0)


def test_sums_are_accumulated_in_float32() -> None:
    x = torch.full((1, 4096, 4), 0.1, dtype=torch.bfloat16)
    assert absolute_sum(x).dtype == torch.float32
    assert absolute_sum(x).item() == pytest.approx(x.double().sum().item(), rel=1e-4)


@pytest.mark.parametrize("over", ["lead", "all"])
@pytest.mark.parametrize("rows_per_sample", [1, 3])
def test_relative_change(over: str, rows_per_sample: int) -> None:
    """Rows are sample-major: Latte's temporal rows are (sample, patch)."""
    old, new = torch.randn(2, 2 * rows_per_sample, 6, 5)
    signal = RelativeChange(over=over)
    value = read([begin(signal, new, old, 2, 2)])["distance"]
    samples = [(n - o).abs().sum() / o.abs().sum() for n, o in zip(new.chunk(2), old.chunk(2), strict=True)]
    pooled = (new - old).abs().sum() / old.abs().sum()
    assert value == pytest.approx((max(samples) if over == "lead" else pooled).item(), rel=1e-5)


def test_calls_of_one_evaluation_are_pooled() -> None:
    """Separate calls, one per branch, give what one batch of both gives."""
    old, new = torch.randn(2, 2, 6, 5)
    for signal in (RelativeChange(over="all"), MotionRatio(over="all", strides=(1, 2))):
        together = read([begin(signal, new, old, 3, 2)])
        apart = [begin(signal, new[i : i + 1], old[i : i + 1], 3, 1) for i in range(2)]
        assert read(apart) == pytest.approx(together)


def test_a_sample_that_is_not_a_number_counts_as_the_most_restless() -> None:
    old, new = torch.randn(2, 2, 6, 5)
    new[0] = float("nan")
    value = read([begin(RelativeChange(), new, old, 2, 2)])["distance"]
    assert value != value


def test_motion_ratio_by_definition() -> None:
    x = torch.randn(2, 4 * 3, 5)  # 4 frames of 3 tokens
    value = read([begin(MotionRatio(strides=(1, 3)), x, None, 4, 2)])["motion"]
    frames = x.unflatten(1, (4, 3))

    def motion(sample: torch.Tensor, j: int) -> float:
        later, earlier = sample[j:], sample[:-j]
        return ((later - earlier).abs().sum() / (later.abs().sum() + earlier.abs().sum())).item()

    expected = max((motion(sample, 1) + motion(sample, 3)) / 2 for sample in frames)
    assert value == pytest.approx(expected, rel=1e-5)


def test_motion_of_stills_noise_and_single_frames() -> None:
    still = torch.randn(1, 1, 8, 5).expand(1, 6, 8, 5).reshape(1, 48, 5)
    noise = torch.randn(1, 6 * 400, 16, generator=torch.Generator().manual_seed(0))
    signal = MotionRatio()
    assert read([begin(signal, still, None, 6, 1)])["motion"] == 0.0
    assert read([begin(signal, noise, None, 6, 1)])["motion"] == pytest.approx(0.707, abs=0.01)
    single = read([begin(signal, noise[:, :400], None, 1, 1)])["motion"]
    assert single != single
    long_stride = MotionRatio(strides=(9,))
    assert read([begin(long_stride, noise, None, 6, 1)])["motion"] != 0.0


def test_several_probes_count_by_their_mean() -> None:
    """Each probe has its own history and ratio; AdaCache's reference averages its voting blocks."""
    probes = (AttentionResidual(0.5), RestResidual(0.5))
    signal = RelativeChange(probes)
    old, new = torch.randn(2, 1, 6, 5), torch.randn(2, 1, 6, 5)
    begun = [
        Measurement.begin(RULE, signal, probe, new[i], (old[i],), 2, 1) for i, probe in enumerate(probes)
    ]
    ratios = [((new[i] - old[i]).abs().sum() / old[i].abs().sum()).item() for i in range(2)]
    assert read(begun)["distance"] == pytest.approx(sum(ratios) / 2, rel=1e-5)


def test_progress_from_the_last_but_one() -> None:
    """Half a step beyond the newest is 1.5; the newest itself 1; samples apart, the largest counts."""
    older, step = torch.randn(2, 2, 6, 5)
    signal = Progress(PrefixResidual())

    def progress(new: torch.Tensor) -> float:
        previous = (older, older + step)
        return read([Measurement.begin(RULE, signal, signal.probe, new, previous, 2, 2)])["progress"]

    assert progress(older + 1.5 * step) == pytest.approx(1.5, rel=1e-5)
    assert progress(older + step) == pytest.approx(1.0, rel=1e-5)
    mixed = torch.cat([older[:1] + 0.5 * step[:1], older[1:] + 3 * step[1:]])
    assert progress(mixed) == pytest.approx(3.0, rel=1e-5)
    still = Measurement.begin(RULE, signal, signal.probe, older, (older, older), 2, 2)
    assert read([still])["progress"] == 1.0, "nothing moved at all"
