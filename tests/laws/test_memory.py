"""Memory: the bytes in the trace are the bytes that are held, and no more is held than will be used."""

from __future__ import annotations

import gc
from collections import defaultdict
from typing import Any

import pytest
import torch

import keystep
from keystep import Policy, Rule, Trace
from keystep.how import Hold, Linear
from keystep.what import Attention, PrefixResidual, Span
from keystep.when import Below, Every, RelativeChange
from tests.laws.instruments import first_blocks, live_bytes, live_storages, may_warn, only_new_objects
from tests.matrix import METHODS, NEVER, pairs, pipe_of, scale_of, zoo_params
from tests.zoo import COGVIDEOX, LATTE, STEPS, WAN, ZOO, Zoo

WATCHED = (3, 6, 7, 9, 11, 14, 15)  # evaluations at which live tensors are counted
EXTRA = {
    "prefix-probe": Policy((Rule(Span(1), Below(2.0, RelativeChange(PrefixResidual())), Hold()),)),
    "span+attention": Policy(
        (Rule(Span(), Every(4, start=5), Hold()), Rule(Attention(), Every(2, start=3), Linear()))
    ),
}


def measured_bytes(zoo: Zoo, **arguments: Any) -> list[int]:
    """Bytes of all live tensors after the watched evaluations of one generation, and after its end."""
    found = []

    def watch(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i + 1 in WATCHED:
            found.append(live_bytes())
        return {}

    zoo.sample(pipe_of(zoo), call={"callback_on_step_end": watch}, **arguments)
    return [*found, live_bytes()]


@pytest.mark.parametrize("name", ["fastercache", "adacache+moreg", *EXTRA])
@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_bytes_printed_equal_bytes_measured(zoo: Zoo, name: str) -> None:
    method, batch = METHODS.get(name) or EXTRA[name], 1 + (zoo is WAN)
    with keystep.accelerate(pipe_of(zoo), method):
        zoo.sample(pipe_of(zoo), batch=batch)  # masks of the frequency split are made once and kept
    with only_new_objects():
        plain = measured_bytes(zoo, batch=batch)
    with only_new_objects(), keystep.accelerate(pipe_of(zoo), method) as session:
        ours = measured_bytes(zoo, batch=batch)
    held = [*(session.trace.rows[k - 1].cache_bytes for k in WATCHED), 0]
    assert [a - b for a, b in zip(ours, plain, strict=True)] == held
    assert max(held) > 0
    assert session.trace.peak_cache_bytes >= max(held)


def entry_bytes(zoo: Zoo, batch: int, kinds: tuple[str, ...] = ("attn1", ".attn")) -> tuple[int, int]:
    """Bytes per branch of all cached attention outputs and of a split difference, from the plain model."""
    sizes: dict[str, int] = {}
    pipe = pipe_of(zoo)

    def hook(name: str) -> Any:
        def record(module: Any, args: Any, output: Any) -> None:
            values = output if isinstance(output, tuple) else (output,)
            sizes[name] = sum(value.nbytes for value in values)

        return record

    model = pipe.transformer
    handles = [m.register_forward_hook(hook(n)) for n, m in model.named_modules() if n.endswith(kinds)]
    handles.append(model.register_forward_hook(hook("output")))
    zoo.sample(pipe, batch=batch, steps=2, scale=1.0)
    for handle in handles:
        handle.remove()
    output = sizes.pop("output")
    return sum(sizes.values()), 2 * output


def needed(trace: Trace, label: str, num_entries: int, branch: str) -> dict[int, int]:
    """By evaluation: how many entries of a rule and branch later ones will use, from the decisions alone."""
    last_use: dict[int, int] = {}
    computed: list[int] = []
    for row in trace.rows:
        is_skipped = label in row.skipped
        if label.startswith("attention") and branch not in row.branches:
            continue
        if is_skipped:
            last_use.update(dict.fromkeys(computed[-num_entries:], row.evaluation))
        else:
            computed.append(row.evaluation)
    return {
        row.evaluation: sum(e <= row.evaluation < last for e, last in last_use.items()) for row in trace.rows
    }


@pytest.mark.parametrize("is_guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", ["fastercache", "fastercache-attention", "fastercache-cfg"])
@pytest.mark.parametrize("zoo", zoo_params())
def test_fastercache_keeps_only_what_its_schedule_will_use(zoo: Zoo, name: str, is_guided: bool) -> None:
    if name == "fastercache-cfg" and not is_guided:
        pytest.skip("CFG-Cache stands aside without guidance")
    if zoo.name == "wan22":
        pytest.skip("what the change of transformers drops is not in the schedule")
    batch = 2
    attention, split = entry_bytes(zoo, batch)
    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe, METHODS[name]) as session:
        zoo.sample(pipe, batch=batch, scale=scale_of(is_guided))
    trace = session.trace
    branches = ("uncond", "cond") if is_guided else ("cond",)
    expected = dict.fromkeys(range(1, STEPS + 1), 0)
    for rule in METHODS[name].policy(trace.model, STEPS).rules:
        label, entries = rule.label, rule.how.num_entries
        if label not in trace.rows[0].decisions:
            continue  # stands aside without guidance
        for branch in branches if label == "attention" else ("uncond",):
            difference = split // 2 if rule.how == Hold() else split
            for k, count in needed(trace, label, entries, branch).items():
                expected[k] += count * (attention if label == "attention" else difference)
    assert {row.evaluation: row.cache_bytes for row in trace.rows} == expected
    assert max(expected.values()) > 0


@pytest.mark.parametrize(("zoo", "name", "batch", "is_guided"), pairs())
def test_no_view_pins_a_larger_storage(zoo: Zoo, name: str, batch: int, is_guided: bool) -> None:
    """Every byte of every storage that is held belongs to an entry that is held."""
    pipe, wasted = pipe_of(zoo), []

    def watch(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if session.run is not None:
            used: dict[int, int] = defaultdict(int)
            sizes: dict[int, int] = {}
            for entries in session.run.histories._entries.values():
                for value in (value for entry in entries for value in entry.values):
                    used[value.untyped_storage().data_ptr()] += value.nbytes
                    sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            assert sum(sizes.values()) == session.run.histories.num_bytes
            wasted.append((i + 1, sum(sizes.values()) - sum(used.values())))
        return {}

    with keystep.accelerate(pipe, METHODS[name]) as session:
        zoo.sample(pipe, call={"callback_on_step_end": watch}, batch=batch, scale=scale_of(is_guided))
    assert [(k, count) for k, count in wasted if count] == []
    assert wasted


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["adacache", "adacache+moreg"])
@pytest.mark.parametrize("zoo", zoo_params())
def test_adacache_holds_two_hidden_states(zoo: Zoo, name: str, batch: int) -> None:
    sizes = []
    pipe = pipe_of(zoo)
    block = first_blocks(pipe.transformer)[0]

    def record(module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        sizes.append(hidden.nbytes)

    handle = block.register_forward_pre_hook(record, with_kwargs=True)
    with keystep.accelerate(pipe, METHODS[name]) as session:
        zoo.sample(pipe, batch=batch, steps=12)
    handle.remove()
    num_calls = 2 if zoo.layouts == ("separate",) else 1
    assert session.trace.hidden_state_bytes == num_calls * sizes[0]
    assert 0 < session.trace.peak_cache_bytes <= 2.1 * session.trace.hidden_state_bytes


@pytest.mark.parametrize("name", ["always", "every1"])
def test_a_policy_that_never_skips_holds_nothing(name: str) -> None:
    with keystep.accelerate(pipe_of(WAN), NEVER[name]) as session, may_warn():
        WAN.sample(pipe_of(WAN), steps=6)
    assert session.trace.peak_cache_bytes == 0


def test_an_interrupted_generation_is_freed_by_the_next_and_by_disable() -> None:
    pipe = WAN.build()
    keystep.enable(pipe, "fastercache")

    def stop(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = i == 8
        return {}

    WAN.sample(pipe)
    with only_new_objects():
        WAN.sample(pipe)
        before = live_bytes()
        WAN.sample(pipe, call={"callback_on_step_end": stop})
        assert live_bytes() > before, "keystep cannot know yet that no evaluation will follow"
        keystep.disable(pipe)
        assert live_bytes() == before


class Stop(Exception):
    pass


def test_twenty_generations_use_flat_memory_and_repeat_bit_for_bit() -> None:
    """Changing prompts, shapes, models and methods, one exception; the same call gives the same bits."""
    names = ["fastercache", "adacache+moreg", "prefix-probe", "fastercache-cfg", "adacache"]
    reference: dict[tuple[str, str], torch.Tensor] = {}
    tensors, objects = [], []

    def explode(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i == 9:
            raise Stop
        return {}

    with only_new_objects():
        for i in range(20):
            zoo, name = ZOO[i % 2 * 4], names[i % 5]
            method = METHODS.get(name) or EXTRA[name]
            pipe = pipe_of(zoo)
            with keystep.accelerate(pipe, method), may_warn():
                zoo.sample(pipe, seed=i, steps=5 + i % 3, batch=1 + i % 2)
                if i == 12:
                    with pytest.raises(Stop):
                        zoo.sample(pipe, call={"callback_on_step_end": explode})
                latents = zoo.sample(pipe)
            first = reference.setdefault((zoo.name, name), latents)
            assert torch.equal(latents, first), f"generation {i}"
            del latents, first
            tensors.append(len(live_storages()) - len(reference))
            objects.append(len(gc.get_objects()) - 3 * len(reference))
    assert len(set(tensors[12:])) == 1, tensors
    assert objects[-1] - objects[12] < 100, objects
