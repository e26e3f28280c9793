"""Attaching to a user's model: every change goes through one exit stack and is taken back exactly."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from keystep.engine.guided_seat import GuidedSeat
from keystep.engine.hints import HintSeat
from keystep.engine.restore import replace_attribute
from keystep.engine.seats import BlockSeat, ExitSeat, Host, ModelSeat
from keystep.engine.tap import Tap, put_tap
from keystep.policy import Policy
from keystep.what import (
    Attention,
    AttentionInput,
    BlockProbe,
    Branch,
    Guided,
    Mlp,
    Output,
    Part,
    Site,
    Span,
    TimeEmbedding,
)

if TYPE_CHECKING:
    from keystep.models.spec import ModelSpec

# What nn.Module.__call__ prefers to its forward: outside the hooks and outside compiled code.
CALL = "_compiled_call_impl"
SEAT = "keystep_seat"
Seats = dict[str, BlockSeat]  # by the name of the block, in the order in which they run
AnySeat = ModelSeat | GuidedSeat | BlockSeat | ExitSeat | HintSeat


class Mark:
    """On a module: the seat in front of its call. A copy of the module has none, and no session."""

    def __init__(self, seat: AnySeat) -> None:
        self.seat = seat

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


def seat(stack: ExitStack, module: nn.Module, value: AnySeat) -> None:
    """Put a seat in front of a module's call, compiled or not."""
    compiled = vars(module).get(CALL)
    if compiled is not None:
        value.call_next = compiled
    replace_attribute(stack, module, CALL, value)
    replace_attribute(stack, module, SEAT, Mark(value))


def attach_model(
    stack: ExitStack, session: Host, name: str, module: nn.Module, spec: ModelSpec, policy: Policy
) -> None:
    """Put seats and taps where `policy` may need them."""
    rules = policy.rules
    if isinstance(rules[0].what, Guided):
        seat(stack, module, GuidedSeat(session, name, module, spec.condition))
        return
    model_seat = ModelSeat(session, name, module, spec)
    seat(stack, module, model_seat)
    if all(isinstance(rule.what, (Branch, Output)) for rule in rules):
        return
    in_order = spec.blocks_in_order(module)
    positions = spec.positions(in_order)
    model_seat.num_positions = len([position for position in positions if position is not None])
    seats = {
        path: BlockSeat(session, module.get_submodule(path), spec, position)
        for path, position in zip(in_order, positions, strict=True)
    }
    for rule in rules:
        # before taps that measure: what those show is shown whether the module below computes or not
        if isinstance(rule.what, (Attention, Mlp)):
            _tap_parts(stack, module, spec, seats, rule.what)
    for rule in rules:
        if isinstance(rule.what, Span) and spec.exit:
            exit_module = module.get_submodule(spec.exit)
            seat(stack, exit_module, ExitSeat(session, exit_module))
        elif isinstance(rule.what, Span):
            seats[in_order[-1]].is_last = True
        for probe in (probe for signal in rule.signals for probe in signal.probes):
            if isinstance(probe, BlockProbe):
                _tap_residual(stack, module, spec, seats, probe)
            elif isinstance(probe, AttentionInput):
                _tap_attention_input(stack, module, spec, seats, rule.what)
            elif isinstance(probe, TimeEmbedding):
                model_seat.time_tap = put_tap(stack, module, spec.time, Tap.show_output)
    for path, block_seat in seats.items():
        seat(stack, module.get_submodule(path), block_seat)
    for name, num_outputs in spec.hints.items():
        if any(isinstance(rule.what, Span) for rule in rules):
            for block in module.get_submodule(name).children():
                seat(stack, block, HintSeat(session, block, num_outputs))


def _tap_parts(stack: ExitStack, module: nn.Module, spec: ModelSpec, seats: Seats, site: Part) -> None:
    for kind, pattern in spec.parts(site).items():
        for number, (path, block_seat) in enumerate(seats.items()):
            name = pattern.format(path.rpartition(".")[2])
            if name.startswith(f"{path}.") and site.covers(kind, number):
                tap = put_tap(stack, module, name, Tap.show_output)
                if norm := spec.norms.get(name.removeprefix(f"{path}.")):
                    tap.norm = put_tap(stack, module, f"{path}.{norm}", Tap.pass_input)
                block_seat.parts.append((name, site, tap))


def _tap_attention_input(
    stack: ExitStack, module: nn.Module, spec: ModelSpec, seats: Seats, span: Site
) -> None:
    assert isinstance(span, Span), "checked with the rule"
    path, block_seat = next((p, s) for p, s in seats.items() if s.position == span.start)
    kinds = (pattern for kind, pattern in spec.attention.items() if Attention().covers(kind, 0))
    names = (pattern.format(path.rpartition(".")[2]) for pattern in kinds)
    name = next(name for name in names if name.startswith(f"{path}."))
    block_seat.attention_input = put_tap(stack, module, name, Tap.peek_input)


def _tap_residual(
    stack: ExitStack, module: nn.Module, spec: ModelSpec, seats: Seats, probe: BlockProbe
) -> None:
    pattern = spec.residual[probe.kind or next(iter(spec.residual))]
    list_name = next(name for name in spec.blocks if pattern.startswith(f"{name}."))
    num_blocks = sum(path.rpartition(".")[0] == list_name for path in seats)
    index = int(round(probe.depth * (num_blocks - 1), 6))  # 13 / 27 of 27 must not become 12
    measured = seats[f"{list_name}.{index}"]
    if measured.after_attention is None:
        measured.after_attention = put_tap(stack, module, pattern.format(index), Tap.show_input)
    if probe not in measured.probes:
        measured.probes.append(probe)
