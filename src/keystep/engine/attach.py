"""Attaching to a user's model: every change goes through one exit stack and is taken back exactly."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING

from torch import nn

from keystep.engine.restore import replace_attribute
from keystep.engine.seats import BlockSeat, ExitSeat, Host, ModelSeat
from keystep.engine.tap import put_tap, show_input, show_output
from keystep.how import FrequencyBands
from keystep.policy import Policy, Rule
from keystep.what import Attention, AttentionResidual, Branch, Guidance, Span

if TYPE_CHECKING:
    from keystep.models.spec import ModelSpec

# What nn.Module.__call__ prefers to its forward: outside the hooks and outside compiled code.
CALL = "_compiled_call_impl"
SEAT = "keystep_seat"


def seat(stack: ExitStack, module: nn.Module, value: ModelSeat | BlockSeat | ExitSeat) -> None:
    """Put a seat in front of a module's call, compiled or not."""
    compiled = vars(module).get(CALL)
    if compiled is not None:
        value.call_next = compiled
    replace_attribute(stack, module, CALL, value)
    replace_attribute(stack, module, SEAT, value)


def check_free(name: str, module: nn.Module) -> None:
    """Raise if something else has already taken this transformer over."""
    occupant = vars(module).get(CALL)
    if isinstance(occupant, ModelSeat):
        raise ValueError(
            f"{name}: already accelerated; leave the first `with keystep.accelerate(...)` or call "
            "keystep.disable(pipe)"
        )
    check_not_compiled(name, module)
    check_no_other_cache(name, module)


def check_not_compiled(name: str, module: nn.Module) -> None:
    """Raise if a transformer is compiled as a whole."""
    if hasattr(module, "_orig_mod") or vars(module).get(CALL) is not None:
        raise ValueError(
            f"{name}: compiled as a whole, which hides everything inside; compile its blocks instead: "
            "`for block in pipe.transformer.transformer_blocks: block.compile()`"
        )


def check_no_other_cache(name: str, module: nn.Module) -> None:
    """Raise if diffusers' own cache is at work in a transformer."""
    if getattr(module, "is_cache_enabled", False):
        raise ValueError(f"{name}: diffusers' own cache is enabled on it; call {name}.disable_cache() first")


def check_seats(models: dict[str, nn.Module]) -> None:
    """Raise if something took a seat's place after attaching, for then nothing would be skipped."""
    for name, module in models.items():
        check_no_other_cache(name, module)
        for path, part in module.named_modules():
            seat_there = getattr(part, SEAT, None)
            if seat_there is not None and vars(part).get(CALL) is not seat_there:
                raise RuntimeError(
                    f"{name}.{path}: its call was replaced after keystep attached (block.compile()?); "
                    "compile first, then call keystep.accelerate() or keystep.enable()"
                )


def attach_model(
    stack: ExitStack, session: Host, name: str, module: nn.Module, spec: ModelSpec, policy: Policy
) -> None:
    """Put seats and taps where `policy` may need them."""
    rules = policy.rules
    seat(stack, module, ModelSeat(session, name, module, spec))
    if all(isinstance(rule.what, Branch) for rule in rules):
        return
    seats = {
        (list_name, index): BlockSeat(session, block, spec, list_name, index)
        for list_name in spec.blocks
        for index, block in enumerate(module.get_submodule(list_name).children())
    }
    _tap_attention(stack, module, spec, seats, policy)
    for rule in rules:
        if isinstance(rule.what, Span):
            exit_module = module.get_submodule(spec.exit)
            seat(stack, exit_module, ExitSeat(session, exit_module))
        for signal in rule.when.signals:
            if isinstance(signal.probe, AttentionResidual):
                _tap_residual(stack, module, spec, seats, signal.probe)
    for (list_name, index), block_seat in seats.items():
        seat(stack, module.get_submodule(f"{list_name}.{index}"), block_seat)


def _tap_attention(
    stack: ExitStack,
    module: nn.Module,
    spec: ModelSpec,
    seats: dict[tuple[str, int], BlockSeat],
    policy: Policy,
) -> None:
    rules = [rule.what for rule in policy.rules if isinstance(rule.what, Attention)]
    for kind, pattern in spec.attention.items():
        if not any(site.covers(kind) for site in rules):
            continue
        for (list_name, index), block_seat in seats.items():
            name = pattern.format(index)
            if name.startswith(f"{list_name}.{index}."):
                tap = put_tap(stack, module.get_submodule(name), show_output)
                block_seat.attention.append((name, kind, tap))


def _tap_residual(
    stack: ExitStack,
    module: nn.Module,
    spec: ModelSpec,
    seats: dict[tuple[str, int], BlockSeat],
    probe: AttentionResidual,
) -> None:
    list_name, after = spec.residual
    num_blocks = sum(name == list_name for name, _ in seats)
    index = int(probe.depth * (num_blocks - 1))
    if seats[list_name, index].measured is None:
        following = module.get_submodule(f"{list_name}.{index}.{after}")
        seats[list_name, index].measured = put_tap(stack, following, show_input)


def check_spec(spec: ModelSpec, module: nn.Module) -> None:
    """Raise if a name in the spec is not in the model."""
    arguments = inspect.signature(module.forward).parameters
    for name in spec.rows:
        if name not in arguments:
            raise ValueError(
                f"spec {spec.name!r}, rows: {type(module).__name__}.forward has no argument {name!r}; it has "
                f"{', '.join(arguments)}"
            )
    for kind, pattern in spec.attention.items():
        if not any(pattern.startswith(f"{blocks}.{{}}.") for blocks in spec.blocks):
            raise ValueError(
                f"spec {spec.name!r}, attention[{kind}]: {pattern!r} lies in none of the block lists "
                f"{', '.join(spec.blocks)}; patterns look like '{spec.blocks[0]}.{{}}.attn'"
            )
    if spec.residual[0] not in spec.blocks:
        raise ValueError(
            f"spec {spec.name!r}, residual: {spec.residual[0]!r} is none of {', '.join(spec.blocks)}"
        )
    names = {name for name, _ in module.named_modules()}
    attention = {f"attention[{kind}]": pattern.format(0) for kind, pattern in spec.attention.items()}
    residual = {"residual": f"{spec.residual[0]}.0.{spec.residual[1]}"}
    for field, name in {
        "exit": spec.exit,
        **{f"blocks {n}": n for n in spec.blocks},
        **attention,
        **residual,
    }.items():
        if name not in names:
            top = sorted({n.split(".")[0] for n in names} - {""})
            raise ValueError(
                f"spec {spec.name!r}, {field}: {type(module).__name__} has no module {name!r}; at the top "
                f"it has {', '.join(top)}"
            )


def check_sites(policy: Policy, spec: ModelSpec, module: nn.Module, guidance: Guidance) -> None:
    """Raise if a rule matches nothing in the model; the message lists what there is."""
    num_blocks = len(list(module.get_submodule(spec.blocks[0]).children()))
    for rule in policy.rules:
        site = rule.what
        if isinstance(site, Attention) and (
            not any(site.covers(kind) for kind in spec.attention)
            or any(kind not in spec.attention for kind in site.kinds)
        ):
            raise ValueError(
                f"{rule.label} matches no site of {spec.transformer}; attention kinds there: "
                f"{', '.join(spec.attention)}"
            )
        if isinstance(site, Span) and site.start >= num_blocks:
            raise ValueError(
                f"{rule.label} matches no site of {spec.transformer}: it has blocks 0 to {num_blocks - 1}"
            )
        if rule.when.asks and guidance.kind == "separate" and guidance.order[0] != "cond":
            raise ValueError(
                f"{rule.label}: its controller needs the conditional call first, but guidance is {guidance}"
            )
        if isinstance(site, Branch):
            check_branch(rule, site, spec, guidance)


def check_branch(rule: Rule, site: Branch, spec: ModelSpec, guidance: Guidance) -> None:
    """Raise if the unconditional output cannot be rebuilt from the conditional one here."""
    label = rule.label
    if site.name not in guidance.order:
        raise ValueError(
            f"{label} matches no site of {spec.transformer}; guidance branches: {', '.join(guidance.order)}"
        )
    if guidance.kind == "separate" and guidance.order[0] != "cond":
        raise ValueError(f"{label}: needs the conditional call first, but guidance is {guidance}")
    if isinstance(rule.how, FrequencyBands) and not spec.can_split_frequencies:
        raise ValueError(f"{label}: the output of {spec.transformer} does not end in latent height and width")
