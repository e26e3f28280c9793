"""Traces: JSON that any reader accepts, summaries in words, bytes counted by storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import keystep
from keystep import Trace
from keystep.engine.history import Histories
from keystep.engine.outputs import samples_of, with_samples
from keystep.engine.summary import format_bytes, summarize
from keystep.engine.trace import Decision, Row
from keystep.how import Entry, Moment
from tests.matrix import METHODS, accelerated_drive, pipe_of
from tests.zoo import WAN


def row(evaluation: int, action: str, reason: str = "scheduled", **options: Any) -> Row:
    values = {
        "evaluation": evaluation,
        "timestep": 900.0 - evaluation,
        "model": "transformer",
        "branches": ("uncond", "cond"),
        "decisions": {"span": Decision(action, reason)},
        "signals": {"distance": 0.5},
        "cache_bytes": 10 * evaluation,
        "seconds": 0.25,
    }
    return Row(**values | options)


def trace() -> Trace:
    rows = [row(1, "compute"), row(2, "skip"), row(3, "compute", "fallback: stale"), row(4, "compute")]
    return Trace("hold", "wan", 4, True, rows, ["a note"], 2048, 1024, True)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def test_numbers_of_a_trace() -> None:
    assert trace().key_steps == [1, 3, 4] and trace().count_skips("span") == 1 and trace().seconds == 1.0


def test_summary() -> None:
    text = summarize(trace())
    for part in (
        "hold on wan: 4 evaluations, guidance on",
        "key steps: 3 (1, 3-4)",
        "span: skipped in 1 evaluations, 1 computed for want of a fresh history",
        "cache: 2.0 KiB at most, 2.00 hidden states",
        "time: 1.00 s",
        "note: a note",
    ):
        assert part in text
    broken = trace()
    broken.is_complete, broken.guided, broken.hidden_state_bytes, broken.rows = (
        False,
        False,
        0,
        broken.rows[:2],
    )
    assert "4 evaluations, stopped after 2, guidance off" in summarize(broken)
    assert "hidden states" not in summarize(broken)
    assert "key steps: 0 ()" in summarize(Trace("m", "wan", 3, True))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**20, "3.0 MiB"), (2**41, "2048.0 GiB")],
)
def test_bytes_in_words(number: int, text: str) -> None:
    assert format_bytes(number) == text


def test_json_is_strict(tmp_path: Path) -> None:
    """Unknown timesteps and infinite distances must not end up as NaN or Infinity, which JSON has not."""
    strange = trace()
    strange.rows.append(row(5, "skip", timestep=float("nan"), signals={"distance": float("inf")}))
    strange.save(tmp_path / "trace.json")
    data = json.loads((tmp_path / "trace.json").read_text(), parse_constant=refuse)
    assert data["key_steps"] == [1, 3, 4] and data["seconds"] == 1.25
    assert data["rows"][1]["decisions"]["span"] == {"action": "skip", "reason": "scheduled"}
    assert data["rows"][4]["timestep"] is None and data["rows"][4]["signals"]["distance"] is None
    assert data == json.loads(json.dumps(strange.to_dict()))


def test_real_traces_are_strict_json(tmp_path: Path) -> None:
    for name in METHODS:
        with keystep.accelerate(pipe_of(WAN), METHODS[name]) as session:
            assert session.summary() == "no generation yet" and session.trace is None
            WAN.sample(pipe_of(WAN))
        session.trace.save(tmp_path / "trace.json")
        data = json.loads((tmp_path / "trace.json").read_text(), parse_constant=refuse)
        assert [r["evaluation"] for r in data["rows"]] == list(range(1, 17))
        assert f"{session.trace.method} on wan: 16 evaluations" in session.summary()
    _, bare = accelerated_drive(WAN, METHODS["adacache"], "batched:uncond,cond")
    json.loads(json.dumps(bare.to_dict()), parse_constant=refuse)


def entry(k: int, *values: torch.Tensor) -> Entry:
    return Entry(Moment(k, 0.0), values)


def test_histories_count_storages_once() -> None:
    held = Histories()
    whole = torch.zeros(2, 8)
    held.push(("r", "a", "uncond"), entry(1, whole[:1]), 2)
    held.push(("r", "a", "cond"), entry(1, whole[1:]), 2)
    assert held.num_bytes == held.peak_bytes == 64
    held.push(("r", "b", "cond"), entry(1, torch.zeros(4), torch.zeros(2)), 1)
    assert held.num_bytes == 88
    held.push(("r", "b", "cond"), entry(2, torch.zeros(4)), 1)
    assert (held.num_bytes, held.peak_bytes) == (80, 104)
    assert [e.moment.evaluation for e in held.get(("r", "b", "cond"))] == [2]
    held.trim_rule("r", "uncond", 0)
    assert held.num_bytes == 80, "the other half keeps the storage alive"
    held.trim_rule("r", "cond", 0)
    assert held.num_bytes == 0 and held.get(("r", "a", "cond")) == []
    held.push(("r", "a", "cond"), entry(3, whole), 1)
    held.clear()
    assert held.num_bytes == 0 and held.peak_bytes == 104


def test_outputs() -> None:
    from diffusers.models.modeling_outputs import Transformer2DModelOutput
    from diffusers.models.transformers.transformer_ltx2 import AudioVisualModelOutput

    x, y = torch.ones(1), torch.zeros(1)
    for output in (x, (x,), Transformer2DModelOutput(sample=x)):
        assert samples_of(output)[0] is x
        changed = with_samples(output, [y])
        assert type(changed) is type(output) and samples_of(changed)[0] is y
    for wrong in ((x, x), (), ("x",), None, {"sample": x, "more": x}):
        with pytest.raises(TypeError, match="1 tensor"):
            samples_of(wrong)
    both = AudioVisualModelOutput(sample=x, audio_sample=y)
    assert samples_of(both, 2) == (x, y) and samples_of(with_samples(both, [y, x]), 2) == (y, x)
