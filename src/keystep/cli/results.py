"""What `demo` and `compare` leave in a folder: videos, results.json, results.md, report.html."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from keystep.cli.options import to_json
from keystep.media import choose_scale, write_mp4, write_text
from keystep.metrics.outcome import Outcome, Summary, summarise
from keystep.metrics.quality import Video
from keystep.report import Clip, Group, Report, to_markdown, write_report

VIDEO_FOLDER = "videos"
MAX_GROUPS = 12  # prompts whose videos go into the page; more would make it slow to open
SLUG_LENGTH = 40
PACKAGES = ("keystep", "torch", "diffusers", "transformers")


def name_item(prompt: str, seed: int, method: str) -> str:
    """A file name without suffix that is readable and differs for every prompt, seed and method."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:SLUG_LENGTH]
    digest = hashlib.sha256(f"{prompt}\0{method}".encode()).hexdigest()[:8]
    return f"{slug}-s{seed}-{re.sub(r'[^A-Za-z0-9.+_-]', '_', method)}-{digest}"


def save_video(folder: Path, outcome: Outcome, video: Video, fps: float) -> Outcome:
    """Write the video of an outcome; returns the outcome with the file's name in it."""
    name = f"{VIDEO_FOLDER}/{name_item(outcome.prompt, outcome.seed, outcome.method)}.mp4"
    write_mp4(folder / name, video, fps, choose_scale(video))
    return replace(outcome, video=name)


def describe_machine() -> dict[str, str]:
    """Where and with what a result came about."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "command": shlex.join(["keystep", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "accelerator": accelerator,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def summarise_methods(outcomes: Sequence[Outcome]) -> list[Summary]:
    """A summary for each method, in the order in which methods appear."""
    labels = list(dict.fromkeys(outcome.method for outcome in outcomes))
    return [summarise([outcome for outcome in outcomes if outcome.method == label]) for label in labels]


def collect_notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Remarks a reader of the figures needs: what methods said, what was not counted."""
    remarks = {
        f"{outcome.method}: {note}"
        for outcome in outcomes
        if outcome.trace
        for note in outcome.trace["notes"]
    }
    notes = sorted(remarks)
    uncounted = sorted({name for outcome in outcomes for name in outcome.uncounted})
    if uncounted:
        notes.append(
            f"The compute ratio leaves out {', '.join(uncounted)}: no formula for their operations is known."
        )
    num_groups = len(_group(outcomes))
    if num_groups > MAX_GROUPS:
        notes.append(
            f"The page shows {MAX_GROUPS} of {num_groups} prompts; the other videos are in {VIDEO_FOLDER}/."
        )
    return notes


def write_results(
    folder: Path,
    outcomes: Sequence[Outcome],
    *,
    title: str,
    lead: str,
    settings: Mapping[str, Any],
    fps: float,
    notes: Sequence[str] = (),
) -> list[Summary]:
    """Write results.json, results.md and report.html from outcomes whose videos are in `folder`.

    Args:
        folder: where everything goes.
        outcomes: in the order of the page: prompt by prompt, the plain one first.
        title, lead: head of the page.
        settings: name -> value, what was asked for.
        fps: frames per second of the videos.
        notes: remarks; those of `collect_notes` are added.

    Returns:
        The summaries, a method each.
    """
    summaries = summarise_methods(outcomes)
    notes = [*notes, *collect_notes(outcomes)]
    facts = {**settings, **describe_machine()}
    data = {
        "facts": facts,
        "summaries": [asdict(summary) for summary in summaries],
        "outcomes": [outcome.to_dict() for outcome in outcomes],
        "notes": notes,
    }
    write_text(folder / "results.json", to_json(data))
    remarks = "".join(f"\n- {note}" for note in notes)
    write_text(folder / "results.md", f"{to_markdown(summaries)}{remarks}\n")
    shown = [_read_group(folder, group) for group in _group(outcomes)[:MAX_GROUPS]]
    texts = {name: str(value) for name, value in facts.items()}
    write_report(folder / "report.html", Report(title, lead, texts, summaries, shown, fps, notes))
    return summaries


def _group(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.prompt, outcome.seed), []).append(outcome)
    return list(groups.values())


def _read_group(folder: Path, outcomes: Sequence[Outcome]) -> Group:
    clips = [Clip(outcome.method, (folder / outcome.video).read_bytes(), outcome) for outcome in outcomes]
    return Group(outcomes[0].prompt, outcomes[0].seed, tuple(clips))
