import json
import math
from dataclasses import replace

import pytest

from keystep.metrics.outcome import Outcome, TimedPair, encode_numbers, summarise
from keystep.metrics.quality import Quality

TRACE = {
    "key_steps": [1, 2, 5],
    "num_evaluations": 6,
    "peak_cache_bytes": 3000,
    "hidden_state_bytes": 1000,
    "notes": [],
    "rows": [{"timestep": math.nan}],
}
OUTCOME = Outcome(
    prompt="p",
    seed=0,
    method="m",
    quality=Quality(30.0, 0.9, 0.01, (30.0, math.inf)),
    flops=40.0,
    plain_flops=100.0,
    uncounted=(),
    pairs=(TimedPair(2.0, 1.0, 3.0, 2.0), TimedPair(3.0, 1.0, 4.0, 2.0), TimedPair(4.0, 1.0, 5.0, 2.0)),
    trace=TRACE,
)


def test_outcomes_survive_strict_json():
    text = json.dumps(OUTCOME.to_dict(), allow_nan=False)
    back = Outcome.from_dict(json.loads(text))
    assert back.quality == OUTCOME.quality
    assert back.pairs == OUTCOME.pairs
    assert replace(back, trace=None) == replace(OUTCOME, trace=None)


def test_an_outcome_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="seed"):
        Outcome.from_dict({**OUTCOME.to_dict(), "seed": "many"})


def test_numbers_that_json_lacks_become_words():
    data = {"a": [math.inf, (-math.inf, 1.5)], "b": math.nan, "c": 3}
    assert encode_numbers(data) == {"a": ["inf", ["-inf", 1.5]], "b": "nan", "c": 3}


def test_speedup_is_the_median_of_pair_ratios():
    summary = summarise([OUTCOME])
    assert summary.speedup is not None
    assert (summary.speedup.median, summary.speedup.min, summary.speedup.max, summary.speedup.num) == (
        3,
        2,
        4,
        3,
    )
    assert summary.end_to_end is not None
    assert summary.end_to_end.median == 2
    assert summary.compute_ratio == pytest.approx(0.4)
    assert summary.realised == pytest.approx(3 * 0.4)


def test_quality_and_cost_over_videos():
    other = replace(
        OUTCOME,
        quality=Quality(20.0, 0.7, 0.03, (20.0,)),
        trace={**TRACE, "key_steps": [1], "peak_cache_bytes": 5000},
        flops=20.0,
    )
    summary = summarise([OUTCOME, other])
    assert summary.psnr == 25.0
    assert summary.psnr_low == 20.0
    assert summary.ssim == pytest.approx(0.8)
    assert summary.compute_ratio == pytest.approx(0.3)
    assert summary.key_steps is not None
    assert (summary.key_steps.median, summary.key_steps.min, summary.key_steps.max) == (2, 1, 3)
    assert summary.cache_bytes == 5000
    assert summary.hidden_states == 5.0


def test_identical_videos_have_no_undefined_percentile():
    same = replace(OUTCOME, quality=Quality(math.inf, 1.0, 0.0, (math.inf,)))
    summary = summarise([same, same])
    assert summary.psnr == math.inf
    assert summary.psnr_low == math.inf


def test_what_was_not_measured_is_none():
    plain = replace(OUTCOME, quality=None, pairs=(), trace=None, flops=0.0, plain_flops=0.0)
    summary = summarise([plain])
    for value in (summary.speedup, summary.realised, summary.psnr, summary.key_steps, summary.cache_bytes):
        assert value is None
    assert summary.compute_ratio is None


def test_an_unknown_hidden_state_gives_no_multiple():
    assert summarise([replace(OUTCOME, trace={**TRACE, "hidden_state_bytes": 0})]).hidden_states is None


def test_methods_are_not_mixed():
    with pytest.raises(ValueError, match="one method"):
        summarise([OUTCOME, replace(OUTCOME, method="n")])
    with pytest.raises(ValueError, match="one method"):
        summarise([])
