"""Checks before and after attaching: what cannot work is refused in words, before anything is changed."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from keystep.engine.attach import CALL, SEAT
from keystep.engine.guided_seat import GuidedSeat
from keystep.engine.seats import ModelSeat
from keystep.policy import Policy, Rule
from keystep.what import Attention, BlockProbe, Branch, Guidance, Mlp, Part, Span, TimeEmbedding

if TYPE_CHECKING:
    from keystep.models.spec import ModelSpec


def check_free(name: str, module: nn.Module, entry: object = None) -> None:
    """Raise if something else has taken this transformer over; `entry` as in `check_no_other_cache`."""
    occupant = vars(module).get(CALL)
    if isinstance(occupant, (ModelSeat, GuidedSeat)):
        raise ValueError(
            f"{name}: already accelerated; leave the first `with keystep.accelerate(...)` or call "
            "keystep.disable(pipe)"
        )
    check_not_parallel(name, module)
    check_no_other_cache(name, module, entry)


def check_not_compiled(name: str, module: nn.Module) -> None:
    """Raise if a transformer is compiled as a whole."""
    if hasattr(module, "_orig_mod") or vars(module).get(CALL) is not None:
        raise ValueError(
            f"{name}: compiled as a whole, which hides everything inside; compile its blocks instead: "
            "`for block in pipe.transformer.transformer_blocks: block.compile()`"
        )


def check_not_parallel(name: str, module: nn.Module) -> None:
    """Raise if diffusers' own context or tensor parallelism is at work in a transformer."""
    if getattr(module, "_parallel_config", None) is not None:
        raise ValueError(
            f"{name}: diffusers' enable_parallelism() is in force, whose ranks would decide apart from each "
            "other; load the model without it, keystep.parallel() shares it out instead"
        )


def check_no_other_cache(name: str, module: nn.Module, entry: object = None) -> None:
    """Raise if another cache is at work in a transformer; `entry` is what keystep itself gave it."""
    if getattr(module, "is_cache_enabled", False) and module._cache_config is not entry:
        raise ValueError(
            f"{name}: a cache is enabled on it with enable_cache(); call {name}.disable_cache() first"
        )


def check_entry(models: dict[str, nn.Module], entry: object) -> None:
    """Raise if diffusers' `enable_cache` was given keystep's settings for another transformer than theirs."""
    if entry is None or any(getattr(module, "_cache_config", None) is entry for module in models.values()):
        return
    raise RuntimeError(
        "enable_cache: it was called on another transformer than that of the pipeline in CacheConfig(pipe, "
        "...); call disable_cache() there, then "
        "pipe.transformer.enable_cache(keystep.CacheConfig(pipe, ...)) with one and the same pipe"
    )


def check_seats(models: dict[str, nn.Module], entry: object = None) -> None:
    """Raise if something took a seat's place after attaching, for then nothing would be skipped."""
    for name, module in models.items():
        check_no_other_cache(name, module, entry)
        for path, part in module.named_modules():
            mark = vars(part).get(SEAT)
            if mark is not None and vars(part).get(CALL) is not mark.seat:
                raise RuntimeError(
                    f"{name}.{path}: its call was replaced after keystep attached (block.compile()?); "
                    "compile first, then call keystep.accelerate() or keystep.enable()"
                )


def check_spec(spec: ModelSpec, module: nn.Module) -> None:
    """Raise if a name in the spec is not in the model."""
    arguments = inspect.signature(module.forward).parameters
    for name in spec.rows:
        if name not in arguments:
            raise ValueError(
                f"spec {spec.name!r}, rows: {type(module).__name__}.forward has no argument {name!r}; it has "
                f"{', '.join(arguments)}"
            )
    patterns = {
        f"{field}[{kind}]": pattern
        for field in ("attention", "mlp", "residual")
        for kind, pattern in getattr(spec, field).items()
    }
    for field, pattern in patterns.items():
        if not any(pattern.startswith(f"{blocks}.{{}}.") for blocks in spec.blocks):
            raise ValueError(
                f"spec {spec.name!r}, {field}: {pattern!r} lies in none of the block lists "
                f"{', '.join(spec.blocks)}; patterns look like '{spec.blocks[0]}.{{}}.attn'"
            )
    names = {name for name, _ in module.named_modules()}
    for field, name in {
        **({"exit": spec.exit} if spec.exit else {}),
        **({"time": spec.time} if spec.time else {}),
        **{f"hints {n}": n for n in spec.hints},
        **{f"blocks {n}": n for n in spec.blocks},
        **{field: pattern.format(0) for field, pattern in patterns.items()},
        **{
            f"norms[{part}]": f"{blocks}.0.{norm}"
            for part, norm in spec.norms.items()
            for blocks in spec.blocks
            if f"{blocks}.0.{part}" in names
        },
    }.items():
        if name not in names:
            top = sorted({n.split(".")[0] for n in names} - {""})
            raise ValueError(
                f"spec {spec.name!r}, {field}: {type(module).__name__} has no module {name!r}; at the top "
                f"it has {', '.join(top)}"
            )


def check_sites(policy: Policy, spec: ModelSpec, module: nn.Module, guidance: Guidance) -> None:
    """Raise if a rule matches nothing in the model; the message lists what there is."""
    in_order = spec.blocks_in_order(module)
    num_blocks = len([position for position in spec.positions(in_order) if position is not None])
    for rule in policy.rules:
        site = rule.what
        if isinstance(site, (Attention, Mlp)):
            check_part(site, spec, len(in_order))
        _check_probes(rule, spec)
        if isinstance(site, Span) and site.start + site.num_after >= num_blocks:
            raise ValueError(
                f"{rule.label} matches no site of {spec.transformer}: it has blocks 0 to {num_blocks - 1}"
            )
        if rule.when.asks and guidance.kind == "separate" and guidance.order[0] != "cond":
            raise ValueError(
                f"{rule.label}: its controller needs the conditional call first, but guidance is {guidance}"
            )
        if isinstance(site, Branch):
            check_branch(rule, site, spec, guidance)


def check_part(site: Part, spec: ModelSpec, num_blocks: int) -> None:
    """Raise if a site on parts of blocks, or one of the kinds it names, matches no module."""
    kinds = spec.parts(site)
    named = [replace(site, kinds=(kind,)) for kind in site.kinds] or [site]
    if not all(_matches(each, spec, num_blocks) for each in named):
        raise ValueError(
            f"{site.label} matches no site of {spec.transformer}; {site.part} kinds there: "
            f"{', '.join(kinds) or 'none'}; blocks: 0 to {num_blocks - 1}"
        )


def _matches(site: Part, spec: ModelSpec, num_blocks: int) -> bool:
    return any(site.covers(kind, block) for kind in spec.parts(site) for block in range(num_blocks))


def leave_out(policy: Policy, spec: ModelSpec, module: nn.Module) -> Policy:
    """A partial policy without its rules on parts of blocks that the model lacks; a note says which.

    Raises:
        ValueError: no rule is left.
    """
    if not policy.is_partial:
        return policy
    num_blocks = len(spec.blocks_in_order(module))
    absent = [
        rule
        for rule in policy.rules
        if isinstance(rule.what, (Attention, Mlp)) and not _matches(rule.what, spec, num_blocks)
    ]
    if len(absent) == len(policy.rules):
        raise ValueError(
            f"policy {policy.name!r}: none of its rules matches a site of {spec.transformer}; kinds there: "
            f"attention {', '.join(spec.attention)}; mlp {', '.join(spec.mlp) or 'none'}"
        )
    notes = [f"{rule.label} stands aside: {spec.transformer} has no such site" for rule in absent]
    rules = tuple(rule for rule in policy.rules if rule not in absent)
    return replace(policy, rules=rules, notes=(*policy.notes, *notes))


def _check_probes(rule: Rule, spec: ModelSpec) -> None:
    for signal in rule.signals:
        for probe in signal.probes:
            if isinstance(probe, BlockProbe) and probe.kind and probe.kind not in spec.residual:
                raise ValueError(
                    f"{rule.label}: {probe} matches no block of {spec.transformer}; kinds that can be "
                    f"measured there: {', '.join(spec.residual)}"
                )

            if isinstance(probe, TimeEmbedding) and not spec.time:
                raise ValueError(
                    f"{rule.label}: it is not known which module of {spec.transformer} embeds the timestep; "
                    "name it with time= in a keystep.ModelSpec"
                )


def check_branch(rule: Rule, site: Branch, spec: ModelSpec, guidance: Guidance) -> None:
    """Raise if the unconditional output cannot be rebuilt from the conditional one here."""
    label = rule.label
    if site.name not in guidance.order:
        raise ValueError(
            f"{label} matches no site of {spec.transformer}; guidance branches: {', '.join(guidance.order)}"
        )
    if guidance.kind == "separate" and guidance.order[0] != "cond":
        raise ValueError(f"{label}: needs the conditional call first, but guidance is {guidance}")
