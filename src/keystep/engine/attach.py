"""Attaching to a user's model: every change goes through one exit stack and is taken back exactly."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from torch import nn

from keystep.engine.restore import replace_attribute
from keystep.engine.seats import BlockSeat, ExitSeat, Host, ModelSeat
from keystep.engine.tap import put_tap, show_input, show_output
from keystep.policy import Policy
from keystep.what import Attention, BlockProbe, Branch, Mlp, Span

if TYPE_CHECKING:
    from keystep.models.spec import ModelSpec

# What nn.Module.__call__ prefers to its forward: outside the hooks and outside compiled code.
CALL = "_compiled_call_impl"
SEAT = "keystep_seat"
Seats = dict[tuple[str, int], BlockSeat]  # (block list, index)


def seat(stack: ExitStack, module: nn.Module, value: ModelSeat | BlockSeat | ExitSeat) -> None:
    """Put a seat in front of a module's call, compiled or not."""
    compiled = vars(module).get(CALL)
    if compiled is not None:
        value.call_next = compiled
    replace_attribute(stack, module, CALL, value)
    replace_attribute(stack, module, SEAT, value)


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
    _tap_parts(stack, module, spec, seats, policy)
    for rule in rules:
        if isinstance(rule.what, Span):
            exit_module = module.get_submodule(spec.exit)
            seat(stack, exit_module, ExitSeat(session, exit_module))
        for signal in rule.when.signals:
            for probe in signal.probes:
                if isinstance(probe, BlockProbe):
                    _tap_residual(stack, module, spec, seats, probe)
    for (list_name, index), block_seat in seats.items():
        seat(stack, module.get_submodule(f"{list_name}.{index}"), block_seat)


def _tap_parts(stack: ExitStack, module: nn.Module, spec: ModelSpec, seats: Seats, policy: Policy) -> None:
    in_order = sorted(seats, key=lambda key: (key[1], spec.blocks.index(key[0])))
    for site in [rule.what for rule in policy.rules]:
        if not isinstance(site, (Attention, Mlp)):
            continue
        for kind, pattern in spec.parts(site).items():
            for position, (list_name, index) in enumerate(in_order):
                name = pattern.format(index)
                if name.startswith(f"{list_name}.{index}.") and site.covers(kind, position):
                    tap = put_tap(stack, module.get_submodule(name), show_output)
                    seats[list_name, index].parts.append((name, site, tap))


def _tap_residual(
    stack: ExitStack, module: nn.Module, spec: ModelSpec, seats: Seats, probe: BlockProbe
) -> None:
    pattern = spec.residual[probe.kind or next(iter(spec.residual))]
    list_name = next(name for name in spec.blocks if pattern.startswith(f"{name}."))
    num_blocks = sum(name == list_name for name, _ in seats)
    index = int(round(probe.depth * (num_blocks - 1), 6))  # 13 / 27 of 27 must not become 12
    measured = seats[list_name, index]
    if measured.after_attention is None:
        following = module.get_submodule(pattern.format(index))
        measured.after_attention = put_tap(stack, following, show_input)
    if probe not in measured.probes:
        measured.probes.append(probe)
