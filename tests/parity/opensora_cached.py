"""Open-Sora sampled with FasterCache or AdaCache: latents, what was computed, and every decision.

Files whose entry in `index.json` has a `log` are FasterCache's, those with `decisions` AdaCache's.
FasterCache's reference uses conditional features for the unconditional branch in some full evaluations; ours
computes there. Files that recorded it are compared up to the first such evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import keystep
from keystep import AdaCache, FasterCache, MoReg, Policy, Trace
from keystep.how import FrequencyBands, Linear, Moment
from keystep.models.opensora.transformer import STDiT3
from keystep.what import AttentionResidual, BlockProbe, RestResidual
from keystep.when import Codebook, CodebookState

from .folder import read_json
from .opensora import Recording, find_stdit3, load_stdit3, sample
from .report import RELATIVE, Case, Result, compare_series, not_run, worst

FLOAT32 = 1e-4  # of a number in a decision, before it is amplified
Entry = dict[str, Any]


def find(folder: Path, label: str) -> Iterator[Case]:
    """The cached trajectories of a folder."""
    if not (folder / "index.json").exists():
        return
    for name, entry in read_json(folder / "index.json").items():
        path = folder / f"{name}.safetensors"
        if not isinstance(entry, dict) or not path.exists():
            continue
        if "log" in entry:
            yield Case(label + name, path, fastercache)
        elif "decisions" in entry:
            yield Case(label + name, path, adacache)


# ------------------------------------------------------------------ sampling


@dataclass(frozen=True)
class Sampled:
    """One generation: latents and outputs, how many modules of a kind ran in each evaluation, the trace."""

    latents: list[torch.Tensor]
    outputs: list[torch.Tensor]
    counts: list[Counter[str]]
    trace: Trace


@contextmanager
def counted(model: STDiT3) -> Iterator[Counter[str]]:
    """Counts calls of the first layers of attention modules and MLPs, which a reuse does not reach."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        for block in (*model.spatial_blocks, *model.temporal_blocks):
            for kind, layer in (("attn", block.attn.qkv), ("mlp", block.mlp.fc1)):

                def count(module: torch.nn.Module, inputs: object, kind: str = kind) -> None:
                    del module, inputs
                    counts[kind] += 1

                stack.callback(layer.register_forward_pre_hook(count).remove)
        yield counts


def sample_with(session: keystep.Session, model: STDiT3, recording: Recording) -> Sampled:
    """One generation under a session, guided, in one batch (cond, uncond)."""
    session.begin(recording.num_steps, True, recording.scheduler().timesteps.tolist())
    assert session.trace is not None
    taken: list[Counter[str]] = []
    with counted(model) as counts:

        def end_evaluation() -> None:
            session.step()
            taken.append(Counter(counts))
            counts.clear()

        rerun = sample(model, recording, after_step=end_evaluation)
    return Sampled(rerun.latents, rerun.outputs, taken, session.trace)


# ------------------------------------------------------------------ FasterCache


def fastercache(name: str, path: Path) -> Iterator[Result]:
    """Latents, recorded outputs, decisions and weights of one trajectory."""
    entry, tensors = read_json(path.parent / "index.json")[path.stem], load_file(path)
    log = entry["log"]
    has_mlp = "n_mlp_computed" in log[0]
    method = FasterCache("opensora-multi-device" if has_mlp else "opensora")
    if entry["steps"] != 30:
        yield not_run(name, "the reference counts evaluations of runs of 30 only")
        return
    model = load_stdit3(*find_stdit3(path.parent))
    with keystep.accelerate(model, method) as session:
        found = sample_with(session, model, Recording.read(path))
    policy = method.policy("opensora", entry["steps"])
    end = first_mix(log, found.trace)
    note = "" if end == len(log) else f"to evaluation {end}: then the reference mixes branches"
    yield compare_series(f"{name} latents", found.latents[: end + 1], tensors["latents"][: end + 1], note)
    outputs = [(i, tensors[key]) for i in range(end) if (key := f"model_out.step{i}") in tensors]
    if outputs:
        ours = [found.outputs[i] for i, _ in outputs]
        yield compare_series(f"{name} outputs", ours, torch.stack([golden for _, golden in outputs]))
    wrong = [text for i in range(end) for text in differences(log[i], i, found, policy)]
    yield Result(f"{name} decisions", float(len(wrong)), note="; ".join(wrong[:1]) or f"of {end} evaluations")


def first_mix(log: Sequence[Entry], trace: Trace) -> int:
    """Index of the first evaluation in which the reference reuses what ours finds too old."""
    for index, (entry, row) in enumerate(zip(log, trace.rows, strict=True)):
        if not entry["n_attn_computed"] and row.decisions["attention"].reason.startswith("fallback"):
            return index
    return len(log)


def differences(entry: Entry, index: int, found: Sampled, policy: Policy) -> Iterator[str]:
    """Where an evaluation was not what the log says, in words."""
    row, counts = found.trace.rows[index], found.counts[index]
    pairs: list[tuple[str, Any, Any]] = [
        ("attention modules computed", entry["n_attn_computed"], counts["attn"]),
        ("rows", entry.get("forward_batch", len(row.branches)), len(row.branches)),
        ("MLPs computed", entry.get("n_mlp_computed", counts["mlp"]), counts["mlp"]),
        ("timestep", entry.get("timestep", row.timestep), row.timestep),
    ]
    pairs += list(weights(entry, index + 1, found.trace, policy))
    for what, theirs, ours in pairs:
        if theirs != ours and not (isinstance(ours, float) and abs(theirs - ours) < 1e-9):
            yield f"evaluation {index + 1}: {what} {theirs} in the log, {ours} here"


def weights(
    entry: Entry, evaluation: int, trace: Trace, policy: Policy
) -> Iterator[tuple[str, float, float]]:
    """(what, theirs, ours) of the extrapolation's and the bands' weights, where the log has them."""
    now = Moment(evaluation, 0.0)
    for rule in policy.rules:
        if isinstance(rule.how, Linear) and "w" in entry:
            assert not isinstance(rule.how.weight, float)
            yield "weight", entry["w"], rule.how.weight.at((), now)
        if isinstance(rule.how, FrequencyBands) and "low_delta_total_weight" in entry:
            refreshed = max(r.evaluation for r in trace.rows[:evaluation] if len(r.branches) == 2)
            yield (
                "low band",
                entry["low_delta_total_weight"],
                round(rule.how.low.at(refreshed, evaluation), 6),
            )
            yield (
                "high band",
                entry["high_delta_total_weight"],
                round(rule.how.high.at(refreshed, evaluation), 6),
            )


# ------------------------------------------------------------------ AdaCache


def adacache(name: str, path: Path) -> Iterator[Result]:
    """Latents and decisions; of files with a second video, also of that one after the first."""
    entry, tensors = read_json(path.parent / "index.json")[path.stem], load_file(path)
    model = load_stdit3(*find_stdit3(path.parent))
    policy = policy_of(entry, len(model.temporal_blocks))
    recording = Recording.read(path)
    with keystep.accelerate(model, policy) as session:
        found = sample_with(session, model, recording)
        yield compare_series(f"{name} latents", found.latents, tensors["latents"])
        yield from compare_decisions(name, entry, found, policy)
        for key in [key for key in tensors if key.startswith("second_video.latents")]:
            golden = tensors[key]
            text = tensors["second_video.in.y"].squeeze(1)
            inputs = recording.inputs | {"encoder_hidden_states": text}
            found = sample_with(session, model, replace(recording, inputs=inputs, latents=golden))
            second = key.removeprefix("second_video.latents_")
            yield compare_series(f"{name} second video {second}", found.latents, golden)
            log = entry[f"second_video_{second}"]
            yield from compare_decisions(f"{name} second video {second}", log, found, policy)


def policy_of(entry: Entry, depth: int) -> Policy:
    """The policy a file was recorded with: both branches and all samples pooled, as the reference does."""
    *compared, (_, otherwise) = entry["codebook_values"]  # the last threshold is never compared
    first, last = entry.get("moreg_steps", (10, 90) if entry["steps"] == 100 else (4, 26))
    # fractions that lead to these evaluations again
    window = (first / entry["steps"], last / entry["steps"])
    moreg = MoReg(window, tuple(entry.get("moreg_strides", (1,)))) if entry["moreg"] else False
    book = {threshold: rate for threshold, rate in compared}
    method = AdaCache(book, entry["steps"], otherwise, moreg, over="all")
    policy = method.policy("opensora", entry["steps"])
    (rule,) = policy.rules
    assert isinstance(rule.when, Codebook)
    probes = probes_of(entry, depth)
    when = replace(rule.when, distance=replace(rule.when.distance, probe=probes))
    if when.moreg is not None:
        # the last block that votes has the last word
        motion = replace(when.moreg.motion, probe=probes[-1])
        when = replace(when, moreg=replace(when.moreg, motion=motion))
    return replace(policy, rules=(replace(rule, when=when),))


def probes_of(entry: Entry, depth: int) -> tuple[BlockProbe, ...]:
    """Where a file's decisions were measured, in the order in which the blocks run."""
    probe, kinds = {
        "t-attn": (AttentionResidual, ("temporal",)),
        "s-attn": (AttentionResidual, ("spatial",)),
        "ca-mlp": (RestResidual, ("spatial", "temporal")),
    }[entry.get("cache_res", "t-attn")]
    return tuple(probe(index / (depth - 1), kind) for index in entry["cache_loc"] for kind in kinds)


def compare_decisions(name: str, entry: Entry, found: Sampled, policy: Policy) -> Iterator[Result]:
    """Computed evaluations exactly; every decision's numbers, and the rate it leads to."""
    computed = found.trace.key_steps
    note = f"{len(computed)} of {len(found.trace.rows)}"
    yield Result(f"{name} computed", float(computed != entry["computed_steps"]), note=note)
    last_votes = {decision["fwd_id"]: decision for decision in entry["decisions"]}
    (rule,) = policy.rules
    assert isinstance(rule.when, Codebook)
    state, errors, wrong = rule.when.begin(len(found.trace.rows)), [], 0
    for row in found.trace.rows:
        before = state
        state = rule.when.update(state, row.evaluation, not row.skipped, row.signals)
        if row.evaluation in last_votes:
            decision = last_votes[row.evaluation]
            errors.append(largest_error(rule.when, before, decision, row.signals))
            wrong += state.rate != decision["new_rate"]
    yield Result(f"{name} rates", float(wrong), note=f"of {len(last_votes)} decisions")
    error, _ = worst(errors)
    yield Result(f"{name} metrics", error, RELATIVE, f"worst of {len(errors)} decisions")


def largest_error(when: Codebook, before: CodebookState, decision: Entry, signals: dict[str, float]) -> float:
    """Relative errors of the distance, the motion and the regularised metric of one decision."""
    distance = signals["distance"] / before.rate
    pairs = [(decision["running_mean_over_cache_locs"], distance)]
    metric, amplification = distance, 1.0
    if when.moreg is not None:
        motion = signals.get("motion", float("nan"))
        factor, level = when.moreg.factor(motion, before.level, before.rate, decision["fwd_id"])
        metric = distance * factor
        # the gradient is a small difference of levels, each `exponent` times as sensitive as the motion
        amplification = when.moreg.exponent * (1 + when.moreg.gradient * (level + before.level) / factor)
        if "motion_raw_mean" in decision:
            pairs.append((decision["motion_raw_mean"], motion))
    errors = [abs(theirs - ours) / abs(theirs) for theirs, ours in pairs]
    return max([*errors, abs(decision["metric"] - metric) / abs(decision["metric"]) / amplification])
