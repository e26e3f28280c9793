"""One generation as a page: what was computed and reused, why, what was measured and held."""

from __future__ import annotations

from pathlib import Path

from keystep.engine.summary import GUIDANCE
from keystep.engine.trace import Trace
from keystep.media.files import write_text
from keystep.report.html import embed_json, read_scripts, render

TEMPLATE = "trace.html"
MIB = 2**20
HELD = "held in MiB"  # plotted like a signal


def render_trace(trace: Trace) -> str:
    """The page as text; it loads nothing."""
    data = trace.to_dict()
    for row in data["rows"]:
        row["signals"][HELD] = row["cache_bytes"] / MIB
    facts = {
        "model": trace.model,
        "evaluations": f"{len(trace.rows)} of {trace.num_evaluations}"
        + ("" if trace.is_complete else ", broken off"),
        "guidance": GUIDANCE[trace.guided],
        "computed in full": str(len(trace.key_steps)),
        "most held": f"{trace.peak_cache_bytes / MIB:.1f} MiB",
        "time": f"{trace.seconds:.2f} s",
    }
    return render(
        TEMPLATE,
        title=f"keystep: {trace.method}",
        facts=facts,
        script=read_scripts("charts.js"),
        data=embed_json({"label": trace.method, "trace": data}),
    )


def write_trace(path: str | Path, trace: Trace) -> None:
    """Write the page, whole or not at all.

    Raises:
        OSError: the place cannot be written.
    """
    write_text(path, render_trace(trace))
