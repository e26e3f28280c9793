"""Decision logs: what was computed and reused in every evaluation, how many rows, and with what weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from keystep.engine.trace import Row
from keystep.how import FrequencyBands
from keystep.models.registry import find_spec

from .folder import nearest, read_json
from .report import NAN, RELATIVE, Result, not_run, worst

if TYPE_CHECKING:
    from .sampling import Rerun

Log = list[dict[str, Any]]
Counts = dict[str, set[int]]  # attention kind -> rows that went through each of its modules
BANDS = ("delta_lf_norm", "delta_hf_norm")


class Recorder:
    """Mixed into a transformer class: keeps what a call returned and how many rows its attention computed.

    Rows are counted at the query projections, which a reuse does not reach. Overriding `__call__` sees a call
    from outside of anything that is attached to the model, so outputs are the ones a pipeline gets.
    """

    outputs: list[torch.Tensor]
    counts: list[Counts]
    kinds: dict[str, list[str]]
    rows: Counter[str]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.rows.clear()
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        self.outputs.append(output[0].detach().clone())
        self.counts.append({kind: {self.rows[name] for name in names} for kind, names in self.kinds.items()})
        return output


def record(model: Any) -> Any:
    """Make a transformer record its calls in `outputs` and `counts`."""
    cls, rows = type(model), Counter()
    model.__class__ = type(cls.__name__, (Recorder, cls), {"__module__": cls.__module__})
    modules = dict(model.named_modules())
    patterns = find_spec(model, None).attention
    kinds = {
        kind: [name for i in range(len(modules)) if (name := pattern.format(i)) in modules]
        for kind, pattern in patterns.items()
    }
    vars(model).update(outputs=[], counts=[], kinds=kinds, rows=rows)
    for name in (name for names in kinds.values() for name in names):

        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], name: str = name) -> None:
            del module
            rows[name] += inputs[0].shape[0]

        modules[name].to_q.register_forward_pre_hook(count)
    return model


def find_log(path: Path, variant: str) -> Log | None:
    """The log of a variant; the parent's only where the parent has no such trajectory file itself."""
    for log in nearest(path.parent, "decision_log.json"):
        is_other = log.parent != path.parent and (log.parent / path.name).exists()
        content = read_json(log)
        if not is_other and content.get(variant):
            return content[variant]
    return None


def compare_log(name: str, log: Log | None, rerun: Rerun) -> Iterator[Result]:
    """Decisions and computed rows exactly, band norms relatively, evaluation by evaluation."""
    if log is None:
        yield not_run(f"{name} decisions", "no decision log for this trajectory")
        return
    lengths = len(log), len(rerun.trace.rows), len(rerun.counts)
    if len(set(lengths)) > 1:
        text = "log of {}, trace of {}, {} model calls".format(*lengths)
        yield Result(f"{name} decisions", NAN, note=text)
        return
    num_branches = 2 if rerun.trace.guided else 1
    pairs = zip(log, rerun.trace.rows, strict=True)
    decisions = [different_decisions(entry, row, num_branches) for entry, row in pairs]
    yield summarize(f"{name} decisions", decisions)
    rows = [different_counts(entry, counts) for entry, counts in zip(log, rerun.counts, strict=True)]
    yield summarize(f"{name} rows computed", rows)
    if any(BANDS[0] in entry for entry in log):
        errors = [norm_error(entry, output) for entry, output in zip(log, rerun.outputs, strict=True)]
        error, index = worst(errors)
        note = f"worst of {sum(BANDS[0] in entry for entry in log)} at {index}"
        yield Result(f"{name} band norms", error, RELATIVE, note)


def summarize(name: str, differences: list[list[str]]) -> Result:
    """The number of evaluations that differ, and the first one in words."""
    wrong = [index for index, texts in enumerate(differences) if texts]
    first = f"; evaluation {wrong[0] + 1}: {', '.join(differences[wrong[0]])}" if wrong else ""
    return Result(name, float(len(wrong)), note=f"of {len(differences)} evaluations{first}")


def different_decisions(entry: dict[str, Any], row: Row, num_branches: int) -> list[str]:
    """Where a trace row says something else than the log; a log without a word on a site computed it."""
    expected: dict[str, Any] = {"cfg_step": "full" if entry.get("cfg_step", "full") == "full" else "part"}
    found: dict[str, Any] = {"cfg_step": "full" if len(row.branches) == num_branches else "part"}
    for key in [key for key in entry if key == "attn" or key.endswith("_attn")] or ["attn"]:
        expected[key] = entry.get(key, "computed")
        found[key] = "reused" if "attention" in row.skipped else "computed"
    for key in (key for key in ("t", "timestep") if key in entry):
        expected[key], found[key] = entry[key], row.timestep
    return [
        f"{key} {expected[key]} in the log, {found[key]} here"
        for key in expected
        if expected[key] != found[key]
    ]


def different_counts(entry: dict[str, Any], counts: Counts) -> list[str]:
    """Where other numbers of rows were computed than the log says; all modules of a kind must agree."""
    differences = []
    for key in (key for key in entry if key.endswith("attn_rows_computed")):
        kind = key.removesuffix("attn_rows_computed").rstrip("_")
        found = counts.get(kind) if kind else set().union(*counts.values())
        if found != {entry[key]}:
            differences.append(f"{key} {entry[key]} in the log, {found} here")
    return differences


def norm_error(entry: dict[str, Any], output: torch.Tensor) -> float:
    """Relative error of the norms of the bands' spectra, which contain the weights of rebuilt outputs."""
    if BANDS[0] not in entry:
        return 0.0
    uncond, cond = output.double().chunk(2)
    bins = (output.shape[-1] * output.shape[-2]) ** 0.5
    norms = [band.double().norm().item() * bins for band in FrequencyBands().keep(uncond - cond)]
    return max(abs(ours - entry[key]) / (entry[key] or 1.0) for key, ours in zip(BANDS, norms, strict=True))
