"""Draw the sample sheet of a toy model: a row a prompt, every second frame, the prompt above it.

``python scripts/toy_samples.py docs/img/toy-samples.png``
"""

import argparse
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

import keystep
from keystep.models.toy import held_out_prompts
from keystep.models.toy.train.evaluate import generate

FRAME_STRIDE, ZOOM, GAP, TEXT_HEIGHT = 2, 2, 4, 16


def draw_row(clip: np.ndarray, prompt: str) -> PIL.Image.Image:
    frames = np.pad(clip[::FRAME_STRIDE].repeat(ZOOM, 1).repeat(ZOOM, 2), ((0, 0), (0, 0), (0, GAP), (0, 0)))
    strip = PIL.Image.fromarray((255 * np.concatenate(list(frames), axis=1)).round().astype(np.uint8))
    row = PIL.Image.new("RGB", (strip.width, strip.height + TEXT_HEIGHT + GAP), "white")
    PIL.ImageDraw.Draw(row).text((0, 1), prompt, fill="black")
    row.paste(strip, (0, TEXT_HEIGHT))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="the PNG to write")
    parser.add_argument("--prompts", type=int, default=12, help="rows: the first held-out prompts")
    parser.add_argument("--model", choices=("toy", "toy-flow"), default="toy", help="which one draws")
    args = parser.parse_args()
    pipe = keystep.load(args.model)
    pipe.set_progress_bar_config(disable=True)
    prompts = held_out_prompts(args.prompts)
    rows = [
        draw_row(clip.numpy(), prompt) for clip, prompt in zip(generate(pipe, prompts), prompts, strict=True)
    ]
    sheet = PIL.Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for index, row in enumerate(rows):
        sheet.paste(row, (0, index * row.height))
    args.path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.path, optimize=True)


if __name__ == "__main__":
    main()
