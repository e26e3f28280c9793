"""Part one: how near every method's video is to the plain one, and to a converged one, on trained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keystep.lab.book import Book
from keystep.lab.contestant import PLAIN_CONTESTANT, QUALITY, Bench, Contestant
from keystep.lab.measure import Watcher, count_held, count_key_steps, identify, missing, unbroken
from keystep.lab.rows import QualityRow, describe_error
from keystep.lab.sample import Counted, count, generate
from keystep.media import choose_scale, write_mp4
from keystep.metrics.quality import Video, compare_videos, compute_psnr

CONVERGED = 8  # the converged video takes so many times the plain one's steps
Item = tuple[str, int]  # prompt, seed


@dataclass(frozen=True)
class References:
    """What videos of one prompt and seed are compared with.

    Attributes:
        plain: the plain generation.
        video: its video.
        converged: the same noise with `CONVERGED` times as many steps; None where that is left out.
    """

    plain: Counted
    video: Video
    converged: Video | None


def measure_quality(
    bench: Bench,
    contestants: Sequence[Contestant],
    items: Sequence[Item],
    book: Book,
    watcher: Watcher,
    has_converged: bool = True,
    num_shown: int = 0,
) -> None:
    """Add a row to the book for each item and contestant, the plain pipeline first.

    Args:
        bench: a trained model.
        contestants: without the plain one.
        items: prompts and seeds.
        book: what is in it is not measured again.
        watcher: told about every generation.
        has_converged: whether distances to the converged video are wanted.
        num_shown: of the first so many items, default settings leave their videos in the book's folder.
    """
    for index, item in enumerate(items):
        running = unbroken(book, QUALITY, bench, (PLAIN_CONTESTANT, *contestants))
        todo = missing(book, QUALITY, bench, running, item)
        if not todo:
            continue
        references = _make_references(bench, item, has_converged, watcher)
        for contestant in todo:
            if watcher.is_over():
                return
            watcher.begin(f"{bench.subject.name}, {index + 1}/{len(items)}: {contestant.name}")
            book.add(_measure(bench, contestant, item, references, book, index < num_shown))


def _make_references(bench: Bench, item: Item, has_converged: bool, watcher: Watcher) -> References:
    watcher.begin(f"{bench.subject.name}: references")
    plain = count(bench.pipe, bench.call(*item))
    converged = None
    if has_converged:
        converged = _first(generate(bench.pipe, bench.call(*item, CONVERGED * bench.num_steps)))
    return References(plain, _first(plain.frames), converged)


def _measure(
    bench: Bench, contestant: Contestant, item: Item, references: References, book: Book, is_shown: bool
) -> QualityRow:
    who = {**identify(QUALITY, bench, contestant), "prompt": item[0], "seed": item[1]}
    is_plain = contestant is PLAIN_CONTESTANT
    try:
        made = references.plain if is_plain else _run(bench, contestant, item)
    except Exception as error:  # whatever a rival raises is its result
        _check_restored(bench, contestant, item, references)
        return QualityRow(**who, error=describe_error(error))
    video, read = _first(made.frames), bench.subject.read
    if not np.isfinite(video).all():
        return QualityRow(**who, error="the video holds values that are not finite")
    name = ""
    if is_shown and contestant.is_default:
        name = _save(book, bench, contestant, item, video)
    converged = references.converged
    return QualityRow(
        **who,
        to_plain=None if is_plain else compare_videos(video, references.video),
        to_converged=None if converged is None else compute_psnr(video, converged),
        flops=made.flops,
        plain_flops=references.plain.flops,
        key_steps=count_key_steps(made, references.plain),
        num_steps=len(made.step_flops),
        held_bytes=count_held(made, references.plain),
        reading=None if read is None else read(video, item[0]),
        uncounted=made.uncounted,
        video=name,
    )


def _run(bench: Bench, contestant: Contestant, item: Item) -> Counted:
    with contestant.attach(bench):
        return count(bench.pipe, bench.call(*item, contestant.count_steps(bench)))


def _check_restored(bench: Bench, contestant: Contestant, item: Item, references: References) -> None:
    """Stop rather than measure everybody else on a pipeline that a failed rival has left changed."""
    again = _first(generate(bench.pipe, bench.call(*item)))
    if not np.array_equal(again, references.video):
        raise RuntimeError(
            f"{contestant.name} failed and left {bench.subject.name} changed: leave it out by --methods"
        )


def _save(book: Book, bench: Bench, contestant: Contestant, item: Item, video: Video) -> str:
    words = "-".join(filter(None, (bench.subject.name, str(contestant.name), item[0], str(item[1]))))
    name = "videos/" + "".join(c if c.isalnum() or c in "-+." else "_" for c in words) + ".mp4"
    write_mp4(book.folder / name, video, bench.subject.fps, choose_scale(video))
    return name


def _first(frames: Any) -> Video:
    return np.asarray(frames[0], dtype=np.float32)
