"""The record of one generation: what was computed, what was reused, why, and what it held in memory."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Action = Literal["compute", "skip"]


@dataclass(frozen=True)
class Decision:
    """What one rule did in one evaluation.

    Attributes:
        action: `"compute"` or `"skip"` (the value was predicted).
        reason: why, in words: `"scheduled"`, `"distance"`, `"fallback: stale"`, `"inside a skipped span"` ...
    """

    action: Action
    reason: str


@dataclass(frozen=True)
class Row:
    """One evaluation of the model (all guidance branches of one noise level).

    Attributes:
        evaluation: 1-based index within the generation.
        timestep: the scheduler's timestep of this evaluation (nan when unknown).
        model: attribute name of the transformer that ran (`"transformer"`, `"transformer_2"`).
        branches: guidance branches that really went through the model, e.g. `("uncond", "cond")` or
            `("cond",)`.
        decisions: rule name -> `Decision`.
        signals: signal name -> measured value (dimensionless), only where it was measured.
        cache_bytes: bytes held by histories after this evaluation.
        seconds: host time from the end of the previous evaluation to the end of this one.
    """

    evaluation: int
    timestep: float
    model: str
    branches: tuple[str, ...]
    decisions: dict[str, Decision]
    signals: dict[str, float]
    cache_bytes: int
    seconds: float

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the rules that skipped in this evaluation."""
        return tuple(name for name, decision in self.decisions.items() if decision.action == "skip")


@dataclass
class Trace:
    """Everything worth knowing about one generation, kept after its tensors are gone.

    Attributes:
        method: name of the policy.
        model: name of the model spec.
        num_evaluations: evaluations this generation was planned for (N).
        guided: whether classifier-free guidance was on; None = the pipeline does not show it, and the method
            needs not to know.
        rows: one `Row` per finished evaluation.
        notes: remarks for the user, e.g. a rule that stood aside and why.
        peak_cache_bytes: largest number of bytes held by histories at any time, counted by storage.
        hidden_state_bytes: bytes of one hidden state (input of the first block, all branches), 0 if unknown.
        is_complete: False after an exception or an interrupted generation.
        estimated_error: of the video, relative to its latent, where skipped outputs were corrected; None =
            nothing is known.
    """

    method: str
    model: str
    num_evaluations: int
    guided: bool | None
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    peak_cache_bytes: int = 0
    hidden_state_bytes: int = 0
    is_complete: bool = False
    estimated_error: float | None = None

    @property
    def key_steps(self) -> list[int]:
        """Evaluations (1-based) in which no rule skipped anything."""
        return [row.evaluation for row in self.rows if not row.skipped]

    @property
    def seconds(self) -> float:
        """Host time of all finished evaluations."""
        return sum(row.seconds for row in self.rows)

    def count_skips(self, rule: str) -> int:
        """Number of evaluations in which `rule` skipped."""
        return sum(rule in row.skipped for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _without_nan(asdict(self) | {"key_steps": self.key_steps, "seconds": self.seconds})

    def save(self, path: str | Path) -> None:
        """Write the trace as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1))

    def to_html(self, path: str | Path) -> None:
        """Write a page of its own: a strip of evaluations for each rule, signals and bytes held as plots.

        Raises:
            OSError: the place cannot be written.
        """
        from keystep.report.trace import write_trace  # pages are built upon traces, so not at the top

        write_trace(path, self)


def _without_nan(value: Any) -> Any:
    """The same data with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
