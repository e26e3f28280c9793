"""What a search leaves for people: the front as a table, as a plot, and as a policy file for each point."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keystep.media import atomic_path, write_text
from keystep.report import Report, Section, write_report
from keystep.tune.front import Tried

TITLE = "keystep tune"
LEAD = "Settings that no other one beats in both compute and likeness to the plain video of the same noise."
HEADINGS = ("policy", "compute", "PSNR", "10th percentile", "settings")
POLICIES, CHOSEN = "policies", "policy.json"
DPI = 130


def write_pages(
    folder: Path,
    tried: Sequence[Tried],
    front: Sequence[Tried],
    policy_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """Write results.json, results.md, pareto.png, report.html and policies/.

    Args:
        folder: where everything goes.
        tried: all of it.
        front: of what was tried.
        policy_of: values of the knobs -> what a policy file with them says.
        facts: name -> value, for the head of the page.
        notes: remarks.
    """
    for stale in (folder / POLICIES).glob("*.json"):
        stale.unlink()
    for one in front:
        write_policy(folder / POLICIES / f"{name_of(one)}.json", policy_of(one.values))
    data = {"facts": dict(facts), "front": [one.number for one in front], "notes": list(notes)}
    rows = [asdict(one) for one in tried]
    write_text(folder / "results.json", json.dumps({**data, "tried": rows}, indent=1, allow_nan=False) + "\n")
    picture = folder / "pareto.png"
    plot(picture, tried, front)
    cells = [format_row(one) for one in front]
    lines = [HEADINGS, ("---",) * len(HEADINGS), *cells]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    remarks = "".join(f"\n- {note}" for note in notes)
    write_text(folder / "results.md", f"# {TITLE}\n\n{LEAD}\n\n![front](pareto.png)\n\n{table}\n{remarks}\n")
    sections = [
        Section("Quality over compute", png=picture.read_bytes()),
        Section("The front", LEAD, HEADINGS, tuple(cells)),
    ]
    write_report(folder / "report.html", Report(TITLE, LEAD, facts, [], [], 1.0, list(notes), sections))


def write_policy(path: Path, policy: Mapping[str, Any]) -> None:
    """Write a file for `--policy`."""
    write_text(path, json.dumps(policy, indent=1, allow_nan=False) + "\n")


def name_of(one: Tried) -> str:
    """File name of its policy, without the ending; what fits the compute ratio comes first in a listing."""
    return f"{one.score.compute:.3f}-" + ("default" if one.number < 0 else f"trial{one.number}")


def format_row(one: Tried) -> tuple[str, ...]:
    """The cells under `HEADINGS`."""
    score = one.score
    settings = ", ".join(f"{name}={json.dumps(value)}" for name, value in one.values.items())
    figures = (f"{score.compute:.3f}", f"{score.psnr:.2f} dB", f"{score.psnr_low:.2f} dB")
    return (f"{name_of(one)}.json", *figures, settings or "as it comes")


def plot(path: Path, tried: Sequence[Tried], front: Sequence[Tried]) -> None:
    """The front among everything that was tried, as a PNG file."""
    from matplotlib.figure import Figure  # without pyplot, which keeps every figure and wants a display

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.plot([one.score.compute for one in tried], [one.likeness for one in tried], "o", color="0.7")
    axes.plot([one.score.compute for one in front], [one.likeness for one in front], "o-", label="front")
    for one in (one for one in tried if one.number < 0):
        axes.plot([one.score.compute], [one.likeness], "*", markersize=14, label="as it comes")
    axes.set_xlabel("compute ratio (operations of the denoising loop, plain = 1)")
    axes.set_ylabel("PSNR to the plain video, dB")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
