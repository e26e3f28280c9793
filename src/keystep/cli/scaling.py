"""`keystep plan --gpus`: options for GPUs and links, and how forecasts are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from keystep.plan import Forecast, Layout, Machine, MethodPlan, Scaling

Gpus = Annotated[
    str | None, typer.Option(help="Comma-separated numbers of GPUs to spread one video over, e.g. 1,2,4,8.")
]
Gpu = Annotated[str | None, typer.Option(help="Kind of GPU: a100 (default), h100, h200, b200. With --gpus.")]
LinkName = Annotated[
    str | None,
    typer.Option(
        "--link",
        help="Between GPUs: nvlink3, nvlink4, nvlink5, pcie4, pcie5, ndr (default: the GPU's NVLink).",
    ),
]
Peak = Annotated[float | None, typer.Option(help="TFLOP/s of one GPU, instead of the kind's own.")]
Bandwidth = Annotated[
    float | None, typer.Option(help="GB/s that a GPU sends and receives at once, instead of the link's own.")
]
Latency = Annotated[float | None, typer.Option(help="Microseconds a collective takes whatever its size.")]
Efficiency = Annotated[
    float | None, typer.Option(help="Share of the peak that the model reaches on one GPU (default: 0.4).")
]
Other = Annotated[
    float | None, typer.Option(help="Seconds outside the denoiser, which more GPUs do not shorten.")
]

PLAIN = "none"
DEFAULT_GPU = "a100"
HEADINGS = ("method", "GPUs", "layout", "TFLOP", "GB sent", "compute", "exchange", "run", "speed-up")
NOTE = (
    "TFLOP, GB sent, compute and exchange: of a mean evaluation on the busiest GPU; speed-up: over the plain "
    "run on one. Nothing is overlapped. ulysses deals the tokens of every frame out, cfg gives each guidance "
    "branch GPUs of its own."
)
Forecasts = dict[
    str, list[tuple["Forecast", ...]]
]  # method -> per layout, one forecast or those of both ends


def parse_counts(text: str | None, hardware: Mapping[str, Any]) -> list[int]:
    """Numbers of GPUs.

    Raises:
        ValueError: something else, or options of GPUs without their number.
    """
    given = [f"--{name}" for name, value in hardware.items() if value is not None]
    if text is None and given:
        raise ValueError(f"{', '.join(given)}: for runs on several GPUs; say how many, e.g. --gpus 1,2,4,8")
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if (text is not None and not words) or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--gpus: given {text!r}, allowed: numbers >= 1 with commas between, e.g. 1,2,4,8")
    return sorted({int(word) for word in words})


def describe_machine(hardware: Mapping[str, Any], dtype: torch.dtype) -> Machine:
    """The machine that the options describe.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    from keystep.plan.hardware import EFFICIENCY, USUAL_LINK, Link, Machine, find_link, find_peak

    gpu = hardware["gpu"] or DEFAULT_GPU
    peak = find_peak(gpu, dtype) if hardware["peak"] is None else hardware["peak"] * 1e12
    usual = find_link(hardware["link"] or USUAL_LINK.get(gpu, USUAL_LINK[DEFAULT_GPU]))
    link = Link(
        usual.bandwidth if hardware["bandwidth"] is None else hardware["bandwidth"] * 1e9,
        usual.latency if hardware["latency"] is None else hardware["latency"] * 1e-6,
    )
    efficiency = EFFICIENCY if hardware["efficiency"] is None else hardware["efficiency"]
    return Machine(peak, link, efficiency, hardware["other"] or 0.0)


def forecast(scales: Scaling, layouts: Sequence[Layout], plans: Mapping[str, MethodPlan]) -> Forecasts:
    """Forecasts of the plain run and of each method in each layout that it can have."""
    plain = [scales.model.cost] * scales.workload.num_evaluations
    runs: dict[str, tuple[Sequence[Any], ...]] = {PLAIN: (plain,)}
    runs |= {name: plan.runs for name, plan in plans.items()}
    alone = {name for name, plan in plans.items() if plan.needs_both_branches}
    return {
        name: [
            tuple(dict.fromkeys(scales.forecast(run, layout) for run in ends))
            for layout in layouts
            if not (layout.splits_guidance and name in alone)
        ]
        for name, ends in runs.items()
    }


def to_data(machine: Machine | None, forecasts: Forecasts) -> dict[str, Any]:
    """Forecasts as JSON values; nothing without a machine."""
    if machine is None:
        return {}
    rows = {
        name: [[asdict(end) for end in ends] for ends in by_layout] for name, by_layout in forecasts.items()
    }
    return {"machine": asdict(machine), "scaling": rows}


def print_forecasts(machine: Machine, forecasts: Forecasts, plans: Mapping[str, MethodPlan]) -> None:
    """Print a table of all layouts."""
    from keystep.cli.console import print_table

    single = next((ends[0].run_s for ends in forecasts[PLAIN] if ends[0].num_gpus == 1), None)
    typer.echo(
        f"GPUs of {machine.peak / 1e12:.0f} TFLOP/s at {machine.efficiency:.0%}, links of "
        f"{machine.link.bandwidth / 1e9:.0f} GB/s and {machine.link.latency * 1e6:.0f} us, "
        f"{machine.other:.1f} s outside the denoiser"
    )
    rows = [_row(name, ends, single) for name, by_layout in forecasts.items() for ends in by_layout]
    print_table(HEADINGS, rows)
    for name in (name for name, plan in plans.items() if plan.needs_both_branches):
        typer.echo(
            f"{name}: it rebuilds one guidance branch from the other (CFG-Cache), so with cfg half of the "
            "GPUs would stand idle; the two are not combined"
        )
    typer.echo(NOTE)


def _row(name: str, ends: Sequence[Forecast], single: float | None) -> tuple[str, ...]:
    def span(values: Iterable[float], form: str) -> str:
        return " to ".join(dict.fromkeys(format(value, form) for value in values))

    return (
        name,
        str(ends[0].num_gpus),
        ends[0].layout,
        span((end.flops / 1e12 for end in ends), ".1f"),
        span((end.sent_bytes / 1e9 for end in ends), ".3f"),
        f"{span((end.compute_s * 1e3 for end in ends), '.1f')} ms",
        f"{span((end.exchange_s * 1e3 for end in ends), '.1f')} ms",
        f"{span((end.run_s for end in ends), '.1f')} s",
        "" if single is None else f"{span((single / end.run_s for end in ends), '.2f')}x",
    )
