"""Train the toy text-to-video model from nothing, measure it, and write its weights.

``python scripts/train_toy.py --minutes 60 --seed 0 --out runs/toy`` trains the decoder, then the transformer
with its text encoder. ``--model toy-flow`` trains the second transformer beside the decoder and text encoder
that ship. Run it again with the same folder to resume, or with more minutes to train on.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from keystep.models.toy.grammar import held_out_prompts
from keystep.models.toy.loading import load_toy
from keystep.models.toy.pipeline import ToyPipeline
from keystep.models.toy.train.decoder_task import DecoderTask
from keystep.models.toy.train.denoiser_task import DenoiserTask, FlowDenoiserTask
from keystep.models.toy.train.evaluate import evaluate
from keystep.models.toy.train.export import export, flow_pipeline_from_checkpoint, pipeline_from_checkpoints
from keystep.models.toy.train.loop import Settings, Trainer

DECODER_SHARE, DECODER_MINUTES = 0.15, 4.0  # the decoder saturates early
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("toy", "toy-flow"), default="toy", help="which one to train")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="wall-clock training time, all runs together"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of every batch")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints, logs, weights, result"
    )
    parser.add_argument(
        "--precision", choices=DTYPES, default="bf16", help="fp32 on CPUs without AVX512-BF16"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--eval-prompts", type=int, default=96, help="held-out prompts measured at the end")
    parser.add_argument("--eval-steps", type=int, default=30, help="sampling steps of the measured clips")
    parser.add_argument(
        "--no-compile", action="store_true", help="skip torch.compile: slower, starts at once"
    )
    return parser.parse_args(argv)


def train_toy(args: argparse.Namespace) -> ToyPipeline:
    decoder_minutes = min(DECODER_MINUTES, DECODER_SHARE * args.minutes)
    compiled = not args.no_compile
    for make, minutes in ((DecoderTask, decoder_minutes), (DenoiserTask, args.minutes - decoder_minutes)):
        Trainer(make(compiled=compiled), settings(args, minutes)).run()
    return pipeline_from_checkpoints(args.out)


def train_toy_flow(args: argparse.Namespace) -> ToyPipeline:
    task = FlowDenoiserTask(load_toy().text_encoder, compiled=not args.no_compile)
    Trainer(task, settings(args, args.minutes)).run()
    return flow_pipeline_from_checkpoint(args.out)


def settings(args: argparse.Namespace, minutes: float) -> Settings:
    return Settings(minutes, args.out, seed=args.seed, dtype=DTYPES[args.precision])


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    pipe = train_toy(args) if args.model == "toy" else train_toy_flow(args)
    pipe.set_progress_bar_config(disable=True)
    export(pipe, args.out / "weights")
    started = time.perf_counter()
    pipe = pipe.to(torch.float32)  # what ships is float16: measure those values, computed in float32
    prompts = held_out_prompts(args.eval_prompts)
    shares = evaluate(pipe, prompts, num_inference_steps=args.eval_steps)
    seconds = (time.perf_counter() - started) / len(prompts)
    result = {
        "accuracy": shares,
        "num_prompts": len(prompts),
        "num_steps": args.eval_steps,
        "s_per_clip": seconds,
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
