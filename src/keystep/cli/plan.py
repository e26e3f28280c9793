"""`keystep plan`: tokens, memory and compute of a run, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystep.cli import options, scaling

if TYPE_CHECKING:
    from keystep.plan import MethodPlan, ModelPlan, Workload

DEFAULT_METHODS = "auto,fastercache,adacache,adacache+moreg"
HEADINGS = ("method", "skips", "evaluations", "compute", "cache")
NOTE = (
    "Of the denoiser alone, without text encoder and video decoder; guidance on; attention fused, nothing "
    "else. compute: FLOPs of the whole run over those of the plain one. An adaptive method lies between its "
    "two figures, as the video demands."
)


def plan(
    model: options.Model,
    resolution: options.Resolution = None,
    aspect: options.Aspect = None,
    seconds: options.Seconds = None,
    frames: options.Frames = None,
    height: options.Height = None,
    width: options.Width = None,
    steps: options.Steps = None,
    batch: Annotated[int, typer.Option(min=1, help="Videos at once.")] = 1,
    dtype: options.DtypeOption = options.Dtype.bfloat16,
    methods: options.Methods = DEFAULT_METHODS,
    policy: options.PolicyFiles = None,
    gpus: scaling.Gpus = None,
    gpu: scaling.Gpu = None,
    link: scaling.LinkName = None,
    peak: scaling.Peak = None,
    bandwidth: scaling.Bandwidth = None,
    latency: scaling.Latency = None,
    efficiency: scaling.Efficiency = None,
    other: scaling.Other = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Plan a run without weights: tokens, bytes, FLOPs, what each method and more GPUs make of them."""
    from keystep.cli.method_options import build_methods
    from keystep.plan import Scaling, plan_method, plan_model

    size = {
        "resolution": resolution, "aspect": aspect, "seconds": seconds, "frames": frames, "height": height,
        "width": width,
    }  # fmt: skip
    hardware = {
        "gpu": gpu, "link": link, "peak": peak, "bandwidth": bandwidth, "latency": latency,
        "efficiency": efficiency, "other": other,
    }  # fmt: skip
    workload = describe(model, size, steps, batch, dtype)
    counts = scaling.parse_counts(gpus, hardware)
    machine = scaling.describe_machine(hardware, workload.dtype) if counts else None
    built = build_methods(methods, policy or ())
    model_plan = plan_model(workload)
    scales = Scaling(workload, model_plan, machine) if machine else None
    all_layouts = [layout for count in counts for layout in scales.layouts(count)] if scales else []
    plans = {name: plan_method(workload, method, model_plan.cost) for name, method in built.items()}
    forecasts = scaling.forecast(scales, all_layouts, plans) if scales else {}
    if json:
        data = to_data(model, workload, model_plan, plans)
        typer.echo(options.to_json(data | scaling.to_data(machine, forecasts)), nl=False)
        return
    _print(model, workload, model_plan, plans)
    if machine:
        scaling.print_forecasts(machine, forecasts, plans)


def describe(
    model: str, size: Mapping[str, Any], steps: int | None, batch: int, dtype: options.Dtype
) -> Workload:
    """The run that the options describe.

    Raises:
        ValueError: a model that cannot be planned, or a size it cannot make.
    """
    import torch

    from keystep.cli.pipeline import SIZE_NAMES, fit_size
    from keystep.errors import unknown
    from keystep.models.catalogue import CATALOGUE, find_model, find_pipeline
    from keystep.models.registry import SPECS
    from keystep.plan import BLUEPRINTS, Video, Workload

    entry = find_model(model)
    name = next((name for name, each in CATALOGUE.items() if each is entry), model)
    if entry is None or name not in BLUEPRINTS:
        raise unknown("model to plan", model, BLUEPRINTS)
    blueprint = BLUEPRINTS[name]
    words = {word: value for word, value in size.items() if value is not None}
    given = fit_size(find_pipeline(model), words) or {SIZE_NAMES[word]: words[word] for word in words}
    video = Video(**(asdict(blueprint.video) | given))
    num_steps = blueprint.num_steps if steps is None else steps
    return Workload(blueprint, SPECS[entry.spec], video, num_steps, batch, getattr(torch, dtype.value))


def to_data(
    model: str, workload: Workload, model_plan: ModelPlan, plans: Mapping[str, MethodPlan]
) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "model": model,
        **asdict(workload.video),
        "num_steps": workload.num_steps,
        "num_evaluations": workload.num_evaluations,
        "batch": workload.batch,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "num_tokens": model_plan.num_tokens,
        **{key: value for key, value in vars(model_plan).items() if key != "cost"},
        "flops": model_plan.cost.flops,
        "methods": {
            name: {key: value for key, value in vars(each).items() if key != "runs"}
            for name, each in plans.items()
        },
    }


def _print(model: str, workload: Workload, model_plan: ModelPlan, plans: Mapping[str, MethodPlan]) -> None:
    from keystep.cli.console import print_table
    from keystep.engine.summary import format_bytes

    video, dtype = workload.video, str(workload.dtype).removeprefix("torch.")
    evaluations = "" if workload.num_evaluations == workload.num_steps else (
        f" ({workload.num_evaluations} evaluations)"
    )  # fmt: skip
    typer.echo(
        f"{model}: {video.num_frames} frames of {video.height} x {video.width}, batch {workload.batch}, "
        f"{workload.num_steps} steps{evaluations}, {dtype}\n"
        f"  tokens: {model_plan.num_tokens} ({model_plan.num_latent_frames} latent frames x "
        f"{model_plan.tokens_per_frame}), {model_plan.num_text_tokens} of text\n"
        f"  weights: {format_bytes(model_plan.weight_bytes)}, {model_plan.num_parameters / 1e9:.2f} billion\n"
        f"  one evaluation: {model_plan.cost.flops / 1e12:.1f} TFLOP, activations "
        f"{format_bytes(model_plan.activation_bytes)} at most"
    )
    print_table(HEADINGS, [_row(name, each, workload.num_evaluations) for name, each in plans.items()])
    for note in (*(f"{name}: {note}" for name, each in plans.items() for note in each.notes), NOTE):
        typer.echo(note)


def _row(name: str, plan: MethodPlan, num_evaluations: int) -> tuple[str, ...]:
    from rich.markup import escape

    from keystep.engine.summary import format_bytes

    skips = escape("\n".join(f"{label}: {_span(*counts)}" for label, counts in plan.skips.items()))
    kind = "adaptive: " if plan.is_adaptive else ""
    return (
        name,
        skips,
        f"{kind}{_span(*plan.computed)} of {num_evaluations} in full",
        _span(*(f"{share:.1%}" for share in plan.compute)),
        format_bytes(plan.cache_bytes),
    )


def _span(least: Any, most: Any) -> str:
    return f"{least}" if least == most else f"{least} to {most}"
