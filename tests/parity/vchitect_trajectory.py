"""`trajectory_*.safetensors` of Vchitect-2.0: guidance, scheduler, generations through its pipeline, VAE.

The reference calls the transformer without the prompt first, keystep with it; recorded are predictions by
branch. Variants: `plain`, and `fc_branchcache`: FasterCache with a history for each branch, of any age.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

import keystep
from keystep.how import FrequencyBands
from keystep.models.vchitect.guidance import guidance_weight
from keystep.models.vchitect.output import decode
from keystep.models.vchitect.pipeline import VchitectPipeline
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

from .decisions import BANDS, Log, find_log, record, summarize
from .folder import nearest, read_json
from .report import ABSOLUTE, RELATIVE, Result, compare_series, largest_difference, not_run, worst
from .trajectory import method_of

Tensors = dict[str, torch.Tensor]
PRESET = "vchitect"
REASONS = {"fc": "the reference's own run, which mixes up the branches; fc_branchcache is the target"}
SHIFT = 3.0  # of the recorded scheduler, where no config says otherwise


def run(name: str, path: Path) -> Iterator[Result]:
    """Everything in one trajectory file."""
    variant = path.stem.removeprefix("trajectory_")
    if variant not in ("plain", "fc_branchcache"):
        yield not_run(name, REASONS.get(variant, f"unknown variant {variant!r}"))
        return
    tensors = {key.partition("(")[0]: value for key, value in load_file(path).items()}
    strength = strength_of(tensors)
    yield from compare_sampler(name, path.parent, tensors, strength)
    yield from generate(name, path, variant, tensors, strength)
    if "frames_np" in tensors:
        yield compare_frames(name, path.parent, tensors)


def strength_of(tensors: Tensors) -> float:
    """The pipeline's `guidance_scale`, from the step that shows it best."""
    times, weights = tensors["timesteps"].tolist(), tensors["guidance"].tolist()
    waves = [guidance_weight(1.0, t, len(times)) - 1 for t in times]
    best = max(range(len(times)), key=lambda k: waves[k])
    return round((weights[best] - 1) / waves[best], 3)


# ------------------------------------------------------------------ sampler


def load_scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    """From a config, where there is one."""
    for path in nearest(folder, "scheduler_config.json"):
        return FlowMatchEulerDiscreteScheduler.from_config(read_json(path))
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def compare_sampler(name: str, folder: Path, tensors: Tensors, strength: float) -> Iterator[Result]:
    """Noise levels, guidance and every step from recorded tensors: the same bits."""
    scheduler, num_steps = load_scheduler(folder), len(tensors["timesteps"])
    scheduler.set_timesteps(num_steps)
    for key in ("timesteps", "sigmas"):
        yield Result(f"{name} {key}", largest_difference(getattr(scheduler, key), tensors[key]))
    weights = [guidance_weight(strength, t, num_steps) for t in scheduler.timesteps.tolist()]
    unequal = sum(a != b for a, b in zip(weights, tensors["guidance"].tolist(), strict=True))
    yield Result(f"{name} guidance", float(unequal), note=f"of {num_steps} weights, strength {strength:g}")
    latents, guided = tensors["latents"], tensors["noise_pred_after_guidance"]
    steps = [
        scheduler.step(guided[k], t, latents[k], return_dict=False)[0]
        for k, t in enumerate(scheduler.timesteps)
    ]
    yield Result(f"{name} steps", largest_difference(torch.stack(steps), latents[1:]))


# ------------------------------------------------------------------ generations


def load_transformer(folder: Path) -> VchitectTransformer3DModel:
    """Strictly, in float32."""
    (config, *_), (weights, *_) = (
        nearest(folder, "transformer_config.json"),
        nearest(folder, "transformer_weights.safetensors"),
    )
    arguments = {key: value for key, value in read_json(config).items() if not key.startswith("_")}
    model = VchitectTransformer3DModel(**arguments)
    model.load_state_dict(load_file(weights), strict=True)
    return model.eval()


def generate(name: str, path: Path, variant: str, tensors: Tensors, strength: float) -> Iterator[Result]:
    """From the first latents to the last with the pipeline; predictions, latents and decisions compared."""
    texts = nearest(path.parent, "text.safetensors")
    if not texts:
        yield not_run(f"{name} cond", "no text.safetensors")
        return
    model: Any = record(load_transformer(path.parent))
    pipe = VchitectPipeline(model, load_scheduler(path.parent), *[None] * 7)
    pipe.set_progress_bar_config(disable=True)
    times, first = tensors["timesteps"], tensors["latents"][0]
    states: list[torch.Tensor] = []

    def keep(pipe: Any, index: int, t: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del pipe, index, t
        states.append(values["latents"][0])
        return values

    embeds = {key: value for key, value in load_file(texts[0]).items() if key.endswith("_embeds")}
    with keystep.accelerate(pipe, method_of(variant, PRESET, len(times))) as session:
        pipe(
            **embeds,
            latents=first[None],
            num_frames=first.shape[0],
            height=8 * first.shape[2],
            width=8 * first.shape[3],
            num_inference_steps=len(times),
            guidance_scale=strength,
            output_type="latent",
            callback_on_step_end=keep,
        )
    conds, unconds = ([output[0] for output in model.outputs[start::2]] for start in (0, 1))
    guided = [u + w * (c - u) for c, u, w in zip(conds, unconds, tensors["guidance"].tolist(), strict=True)]
    for key, ours in (("cond", conds), ("uncond", unconds), ("noise_pred_after_guidance", guided)):
        if key in tensors:
            yield compare_series(f"{name} {key}", ours, tensors[key])
    yield compare_series(f"{name} latents", states, tensors["latents"][1:])
    log = find_log(path, variant)
    if log is None:
        yield not_run(f"{name} decisions", "no decision log for this trajectory")
        return
    assert session.trace is not None, "the pipeline began a generation"
    yield summarize(
        f"{name} decisions",
        [different_decisions(entry, row) for entry, row in zip(log, session.trace.rows, strict=True)],
    )
    yield summarize(f"{name} rows computed", different_counts(log, model.counts))
    yield from compare_bands(name, log, [u - c for c, u in zip(conds, unconds, strict=True)])


def different_decisions(entry: dict[str, Any], row: Any) -> list[str]:
    """Where a trace row names other branches or reuses attention where the log does not."""
    branches = {branch for branch, _ in entry["calls"]}
    attention = {done for _, done in entry["calls"]}
    found = {"reused" if "attention" in row.skipped else "computed"}
    pairs = [
        ("branches", branches, set(row.branches)),
        ("attention", attention, found),
        ("t", entry["t"], row.timestep),
    ]
    return [f"{key} {theirs} in the log, {ours} here" for key, theirs, ours in pairs if theirs != ours]


def different_counts(log: Log, counts: list[dict[str, set[int]]]) -> list[list[str]]:
    """Where attention ran for another number of videos than the log says, call by call."""
    differences = []
    for entry, cond, uncond in zip(log, counts[0::2], counts[1::2], strict=True):
        expected = {branch: {int(done == "computed")} for branch, done in entry["calls"]}
        found = {"cond": set().union(*cond.values()), "uncond": set().union(*uncond.values())}
        differences.append(
            [
                f"{branch} {expected.get(branch, {0})} in the log, {rows} here"
                for branch, rows in found.items()
                if rows != expected.get(branch, {0})
            ]
        )
    return differences


def compare_bands(name: str, log: Log, deltas: list[torch.Tensor]) -> Iterator[Result]:
    """Norms of the spectrum of (uncond - cond): its constant part, and the rest."""
    logged = [(entry, delta) for entry, delta in zip(log, deltas, strict=True) if BANDS[0] in entry]
    errors = []
    for entry, delta in logged:
        bins = (delta.shape[-1] * delta.shape[-2]) ** 0.5
        norms = [band.norm().item() * bins for band in FrequencyBands(radius=0.0).keep(delta.double())]
        errors += [abs(ours - entry[key]) / entry[key] for key, ours in zip(BANDS, norms, strict=True)]
    if errors:
        error, index = worst(errors)
        yield Result(
            f"{name} band norms", error, RELATIVE, f"worst of {len(logged)} at {index // len(BANDS)}"
        )


# ------------------------------------------------------------------ frames


def compare_frames(name: str, folder: Path, tensors: Tensors) -> Result:
    """The last latents decoded, 0 to 1."""
    configs, weights = nearest(folder, "vae_config.json"), nearest(folder, "vae_weights.safetensors")
    if not configs or not weights:
        return not_run(f"{name} frames", "no vae_config.json and vae_weights.safetensors")
    config = {key: value for key, value in read_json(configs[0]).items() if not key.startswith("_")}
    vae = AutoencoderKL(**config)
    vae.load_state_dict(load_file(weights[0]), strict=True)
    video_CFHW = decode(vae.eval(), tensors["latents"][-1][None], chunk_size=2)[0]
    ours = (video_CFHW / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
    return Result(f"{name} frames", largest_difference(ours, tensors["frames_np"]), ABSOLUTE)
