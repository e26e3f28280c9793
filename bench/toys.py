"""What the looks at the two trained models share: their arguments, the held-out prompts, one video."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import keystep
from keystep.media import write_text
from keystep.models.toy.grammar import held_out_prompts

Figures = dict[str, Any]  # for JSON


def generate(pipe: Any, prompt: str, steps: int, **options: Any) -> Any:
    """The frames of a prompt at seed 0."""
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, num_inference_steps=steps, generator=generator, output_type="np", **options).frames[0]


def look(about: str | None, num_prompts: int, measure: Callable[[Any, list[str]], Figures]) -> None:
    """Measure the model that the command line names, and write the figures where it says."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", default="toy", choices=("toy", "toy-flow"))
    parser.add_argument("--num-prompts", type=int, default=num_prompts)
    parser.add_argument("--out", type=Path, help="JSON file for every video's figure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = keystep.load(args.model)
    pipe.set_progress_bar_config(disable=True)
    prompts = list(held_out_prompts(args.num_prompts))
    figures = measure(pipe, prompts)
    if args.out is not None:
        write_text(args.out, json.dumps({"model": args.model, "prompts": prompts, **figures}, indent=1))
