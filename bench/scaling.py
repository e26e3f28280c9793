"""The scaling model beside what was published: work, one A100, and several.

    python -m bench.scaling > bench/results/scaling.md

Published figures: FasterCache, arXiv 2410.19355, Tables 1 and 4; AdaCache, arXiv 2411.02397, Tables 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from keystep import FasterCache, Policy, Rule
from keystep.how import Hold
from keystep.models.catalogue import CATALOGUE
from keystep.models.registry import SPECS
from keystep.plan import BLUEPRINTS, LINKS, Layout, Machine, Scaling, Video, Workload, plan_method, plan_model
from keystep.plan.cost import Cost
from keystep.plan.hardware import GPUS
from keystep.what import Span
from keystep.when import Mask

OPENSORA_2S = ("opensora-1.2", Video(480, 854, 51))
OPENSORA_8S = ("opensora-1.2", Video(480, 854, 192))
PLAN_3S = ("opensora-plan-1.1", Video(512, 512, 65))
PLAN_9S = ("opensora-plan-1.1", Video(512, 512, 221))
LATTE = ("latte", Video(512, 512, 16))
COGVIDEOX = ("cogvideox-2b", Video(480, 720, 49))
VCHITECT = ("vchitect-2.0", Video(432, 768, 40))
Run = tuple[str, Video]

PUBLISHED_TFLOP = {OPENSORA_2S: 3230.24, PLAN_3S: 12032.40, LATTE: 3439.47}  # AdaCache, Table 1
# FasterCache, Table 1: seconds of the plain run and of theirs
PUBLISHED_SINGLE = {
    OPENSORA_8S: (192.07, 118.44),
    PLAN_3S: (103.76, 61.68),
    LATTE: (29.22, 18.98),
    COGVIDEOX: (78.48, 48.44),
    VCHITECT: (260.32, 156.13),
}
NUM_GPUS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Published:
    """A row of plain seconds and one of a method's, on 1, 2, 4 and 8 A100s.

    `compute` is the method's share of the FLOPs where it is adaptive and its paper says so.
    """

    run: Run
    method: str
    plain: tuple[float, ...]
    accelerated: tuple[float, ...]
    compute: float = 0.0


PUBLISHED_SEVERAL = (
    Published(OPENSORA_8S, "FasterCache", (192.07, 72.82, 39.09, 21.62), (118.44, 42.18, 22.55, 12.57)),
    Published(PLAN_9S, "FasterCache", (316.71, 169.21, 89.10, 49.13), (187.91, 104.37, 57.70, 31.82)),
    Published(
        OPENSORA_2S, "AdaCache", (54.02, 29.28, 18.08, 12.95), (24.16, 14.02, 9.56, 7.78), 1331.97 / 3230.24
    ),
    Published(
        PLAN_3S, "AdaCache", (129.67, 79.67, 47.86, 33.34), (35.04, 22.49, 16.54, 14.07), 3283.60 / 12032.40
    ),
)


@cache
def scaling(run: Run) -> Scaling:
    """The run on A100s with NVLink."""
    name, video = run
    blueprint = BLUEPRINTS[name]
    workload = Workload(blueprint, SPECS[CATALOGUE[name].spec], video, blueprint.num_steps)
    return Scaling(workload, plan_model(workload), Machine(GPUS["a100"], LINKS["nvlink3"]))


@cache
def costs(run: Run, compute: float = 0.0) -> tuple[Cost, ...]:
    """The evaluations under FasterCache, or under a schedule that skips the stack for this share of FLOPs."""
    scales = scaling(run)
    num_evaluations = scales.workload.num_evaluations
    computed = round(num_evaluations * compute)
    schedule = Policy((Rule(Span(), Mask("C" * computed + "s" * (num_evaluations - computed)), Hold()),))
    method = schedule if compute else FasterCache()
    return plan_method(scales.workload, method, scales.model.cost).runs[0]


def plain(run: Run) -> Sequence[Cost]:
    scales = scaling(run)
    return [scales.model.cost] * scales.workload.num_evaluations


def seconds(scales: Scaling, run: Sequence[Cost]) -> list[float]:
    return [scales.forecast(run, Layout(num_gpus)).run_s for num_gpus in NUM_GPUS]


def fit(published: Published) -> Scaling:
    """Efficiency and seconds outside the denoiser from two figures: plain on the fewest and most GPUs."""
    scales = scaling(published.run)
    ideal = replace(scales, machine=replace(scales.machine, efficiency=1.0))
    one, *_, eight = (ideal.forecast(plain(published.run), Layout(n)) for n in NUM_GPUS)
    exchange = (eight.exchange_s - one.exchange_s) * ideal.workload.num_evaluations
    slope = (published.plain[0] - published.plain[-1] + exchange) / (one.run_s - eight.run_s + exchange)
    other = max(0.0, published.plain[0] - slope * one.run_s)
    if not other:  # better than linear: no such machine; then only the mean of the row is met
        slope = published.plain[0] / one.run_s
    return replace(scales, machine=replace(scales.machine, efficiency=1 / slope, other=other))


def label(run: Run) -> str:
    name, video = run
    return f"{name}, {video.num_frames} x {video.height} x {video.width}"


def cells(published: Sequence[float], predicted: Iterable[float]) -> str:
    pairs = zip(published, predicted, strict=True)
    return " | ".join(f"{truth:.1f} / {guess:.1f} ({guess / truth - 1:+.0%})" for truth, guess in pairs)


def print_work() -> None:
    print("| run | published TFLOP | counted | off by |\n|---|---|---|---|")
    for run, published in PUBLISHED_TFLOP.items():
        counted = sum(cost.flops for cost in plain(run)) / 1e12
        print(f"| {label(run)} | {published:.0f} | {counted:.0f} | {counted / published - 1:+.1%} |")


def print_single() -> None:
    print(
        "\n| run | plain: published / predicted s | implied efficiency | FasterCache: published | predicted |"
    )
    print("|---|---|---|---|---|")
    for run, (published, accelerated) in PUBLISHED_SINGLE.items():
        scales = scaling(run)
        before, after = (scales.forecast(each, Layout(1)).run_s for each in (plain(run), costs(run)))
        implied = scales.machine.efficiency * before / published
        print(
            f"| {label(run)} | {cells([published], [before])} | {implied:.0%} "
            f"| {published / accelerated:.2f}x | {before / after:.2f}x |"
        )


def print_several() -> None:
    print("\n| run | method | model | 1 | 2 | 4 | 8 |\n|---|---|---|---|---|---|---|")
    for each in PUBLISHED_SEVERAL:
        fitted = fit(each)
        machine = fitted.machine
        models = {
            "as it comes": scaling(each.run),
            f"{machine.efficiency:.0%}, {machine.other:.1f} s outside": fitted,
        }
        for name, scales in models.items():
            predicted = seconds(scales, plain(each.run))
            print(f"| {label(each.run)} | plain | {name} | {cells(each.plain, predicted)} |")
            predicted = seconds(scales, costs(each.run, each.compute))
            print(f"| | {each.method} | {name} | {cells(each.accelerated, predicted)} |")


if __name__ == "__main__":
    print("`python -m bench.scaling`; seconds, published / predicted (difference)\n")
    print_work()
    print_single()
    print_several()
