"""A trace in words."""

from __future__ import annotations

from keystep.engine.trace import Trace
from keystep.when.control import expected_psnr


def format_bytes(num_bytes: float) -> str:
    """Bytes with a binary unit, e.g. `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    raise AssertionError("the last unit always fits")


GUIDANCE = {True: "on", False: "off", None: "not shown by the pipeline"}


def summarize(trace: Trace) -> str:
    """Key steps, skipped work, bytes and time of one generation, a line each."""
    done = "" if trace.is_complete else f", stopped after {len(trace.rows)}"
    lines = [
        f"{trace.method} on {trace.model}: {trace.num_evaluations} evaluations{done}, guidance "
        f"{GUIDANCE[trace.guided]}",
        f"  key steps: {len(trace.key_steps)} ({_ranges(trace.key_steps)})",
    ]
    for label in trace.rows[0].decisions if trace.rows else ():
        fallbacks = sum(row.decisions[label].reason.startswith("fallback") for row in trace.rows)
        also = f", {fallbacks} computed for want of a fresh history" if fallbacks else ""
        lines.append(f"  {label}: skipped in {trace.count_skips(label)} evaluations{also}")
    if trace.estimated_error:
        decibels = expected_psnr(trace.estimated_error)
        lines.append(
            f"  estimated error: {trace.estimated_error:.3f} of the latent; on the models that ship that is "
            f"{decibels:.0f} dB of PSNR, give or take 9, to the plain video of {trace.num_evaluations} steps"
        )
    held = f"  cache: {format_bytes(trace.peak_cache_bytes)} at most"
    if trace.hidden_state_bytes:
        held += f", {trace.peak_cache_bytes / trace.hidden_state_bytes:.2f} hidden states"
    lines += [held, f"  time: {trace.seconds:.2f} s in the denoising loop"]
    return "\n".join(lines + [f"  note: {note}" for note in trace.notes])


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(g[0]) if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in groups)
