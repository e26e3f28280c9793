"""Render one self-contained page: videos in step, the table, timelines, PSNR per frame.

The page loads nothing: videos, data, styles and scripts are inside it, and it forbids itself the network.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from keystep.media.files import write_text
from keystep.metrics.outcome import Outcome, Summary
from keystep.report.table import HEADINGS, format_row

TEMPLATE = "page.html"
SCRIPTS = ("charts.js", "player.js", "app.js")  # in the order in which they use one another


@dataclass(frozen=True)
class Clip:
    """One video of a group.

    Attributes:
        label: shown above it.
        mp4: the file's bytes; None shows its figures alone.
        outcome: its figures and trace.
    """

    label: str
    mp4: bytes | None
    outcome: Outcome


@dataclass(frozen=True)
class Group:
    """Videos of one prompt and seed, the plain one first; they play in step."""

    prompt: str
    seed: int
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Section:
    """A table of text or a picture, under a heading of its own.

    Attributes:
        title: unique on the page.
        lead: one paragraph below it.
        headings: of the table's columns.
        rows: a cell for each heading.
        png: a picture in place of a table; `title` says what it shows.
    """

    title: str
    lead: str = ""
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    png: bytes | None = None

    @property
    def picture(self) -> str:
        """The picture as an address that holds it; empty for none."""
        return (
            "" if self.png is None else "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")
        )


@dataclass(frozen=True)
class Report:
    """Everything a page shows.

    Attributes:
        title: heading of the page.
        lead: one paragraph below it.
        facts: name -> value: model, steps, machine, versions.
        summaries: rows of the table; none leaves it out.
        groups: videos; the reader picks one group at a time.
        fps: frames per second of all videos.
        notes: remarks below the table.
        sections: further tables and pictures, after everything else.
    """

    title: str
    lead: str
    facts: Mapping[str, str]
    summaries: Sequence[Summary]
    groups: Sequence[Group]
    fps: float
    notes: Sequence[str] = field(default=())
    sections: Sequence[Section] = field(default=())

    @property
    def has_traces(self) -> bool:
        """Whether there is a timeline to draw."""
        return any(clip.outcome.trace for group in self.groups for clip in group.clips)


def render_report(report: Report) -> str:
    """The page as text."""
    return render(
        TEMPLATE,
        report=report,
        headings=HEADINGS,
        rows=[format_row(summary) for summary in report.summaries],
        script=read_scripts(*SCRIPTS),
        data=embed_json({"fps": report.fps, "groups": [_describe_group(group) for group in report.groups]}),
    )


def render(template: str, **values: Any) -> str:
    """A page from one of the templates, with the style that all share."""
    environment = Environment(loader=FunctionLoader(_read_asset), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(style=Markup(_read_asset("style.css")), **values)


def read_scripts(*names: str) -> Markup:
    """Scripts one after the other, for the inside of a script element."""
    return Markup("\n".join(map(_read_asset, names)))


def write_report(path: str | Path, report: Report) -> None:
    """Write the page, whole or not at all.

    Raises:
        OSError: the place cannot be written.
    """
    write_text(path, render_report(report))


def _describe_group(group: Group) -> dict[str, Any]:
    return {
        "prompt": group.prompt,
        "seed": group.seed,
        "clips": [_describe_clip(clip) for clip in group.clips],
    }


def _describe_clip(clip: Clip) -> dict[str, Any]:
    outcome = clip.outcome.to_dict()
    return {
        "label": clip.label,
        "mp4": None if clip.mp4 is None else base64.b64encode(clip.mp4).decode("ascii"),
        "quality": outcome["quality"],
        "trace": outcome["trace"],
        "compute": outcome["flops"] / outcome["plain_flops"] if outcome["plain_flops"] else None,
    }


def embed_json(data: Any) -> Markup:
    """Data for the inside of a script element."""
    # A script element ends at the first "</script", wherever it stands.
    return Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c"))


def _read_asset(name: str) -> str:
    return resources.files("keystep.report").joinpath("assets", name).read_text(encoding="utf-8")
