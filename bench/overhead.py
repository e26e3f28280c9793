"""CPU milliseconds an evaluation that a policy costs which never skips, on models that cost next to nothing.

    python -m bench.overhead

Wall times of wide models scatter by two or three per cent, more than what is looked for here. On the
tests' tiny pipelines (4 blocks, Latte 4 + 4) the cost of keystep stands out; it does not depend on the width.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import torch

import keystep
from bench.realised import NEVER_SKIPPING
from tests.zoo import COGVIDEOX, LATTE, STEPS, WAN, Zoo

NUM_PAIRS = 12
NUM_WARM_UP = 2


def milliseconds(zoo: Zoo, pipe: Any) -> float:
    begin = time.process_time()
    zoo.sample(pipe)
    return 1000 * (time.process_time() - begin) / STEPS


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", keystep.KeystepWarning)
    print(
        "| model | policy | plain, ms / evaluation | cost, ms / evaluation | share of a 200 ms evaluation |"
    )
    print("|---|---|---|---|---|")
    for zoo in (LATTE, COGVIDEOX, WAN):
        pipe = zoo.build()
        for name, method in NEVER_SKIPPING.items():
            pairs = []
            for _ in range(NUM_WARM_UP + NUM_PAIRS):
                plain = milliseconds(zoo, pipe)
                with keystep.accelerate(pipe, method):
                    pairs.append((plain, milliseconds(zoo, pipe)))
            cost = statistics.median(accelerated - plain for plain, accelerated in pairs[NUM_WARM_UP:])
            plain = statistics.median(plain for plain, _ in pairs[NUM_WARM_UP:])
            print(f"| {zoo.name} | {name} | {plain:.1f} | {cost:.2f} | {cost / 200:.2%} |")


if __name__ == "__main__":
    main()
