"""L8: compiled blocks keep whole graphs, few of them, none anew in the second generation, and the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import keystep
from keystep import Trace
from keystep.engine.compiled import GRAPHS_PER_FORWARD
from keystep.policy import Policy
from keystep.what import Attention, Mlp
from tests.laws.instruments import may_warn
from tests.matrix import METHODS, pipe_of
from tests.zoo import COGVIDEOX, LATTE, OPENSORA, OPENSORA_PLAN, VCHITECT, WAN, Zoo

STEPS = 12  # the shortest run in which every method skips
# Layouts of a block's inputs in the plain pipeline: Latte's first pair of blocks differs from the others, and
# the last block of joint models has no text to give on. Open-Sora has two; with one row, whose stride means
# nothing, its first block's input counts as another.
LAYOUTS = {"latte": 3, "cogvideox": 2, "wan": 1, "vchitect": 2, "opensora": 3, "opensora-plan": 3}
FEW = ("fastercache", "adacache+moreg")


@pytest.fixture
def graphs() -> Iterator[tuple[list[int], Callable[..., Any]]]:
    """A counter and a backend that counts the graphs it is given and runs them as they are."""
    torch.compiler.reset()
    count = [0]

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        del inputs
        count[0] += 1
        return graph.forward

    yield count, backend
    torch.compiler.reset()


def compile_blocks(pipe: Any, block_lists: tuple[str, ...], backend: Callable[..., Any]) -> None:
    """As diffusers does where it knows the blocks, else each block by itself; a graph break is an error."""
    if pipe.transformer._repeated_blocks:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
        return
    for name in block_lists:
        for block in pipe.transformer.get_submodule(name):
            block.compile(fullgraph=True, backend=backend)


def count_variants(trace: Trace, policy: Policy) -> int:
    """Ways in which blocks are run: with so many guidance rows, these parts skipped."""
    parts = {rule.label for rule in policy.rules if isinstance(rule.what, (Attention, Mlp))}
    return len({(row.branches, frozenset(parts & set(row.skipped))) for row in trace.rows})


@pytest.mark.parametrize(
    ("zoo", "names"),
    [
        *((zoo, METHODS) for zoo in (LATTE, COGVIDEOX, WAN)),
        *((zoo, FEW) for zoo in (VCHITECT, OPENSORA, OPENSORA_PLAN)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_all_methods_on_one_compiled_pipeline(
    zoo: Zoo, names: Any, graphs: tuple[list[int], Callable[..., Any]]
) -> None:
    count, backend = graphs
    pipe, plain_pipe = zoo.build(), pipe_of(zoo)
    with keystep.accelerate(pipe, "adacache") as session:
        spec = session.spec
    compile_blocks(pipe, spec.blocks, backend)
    zoo.sample(pipe, steps=STEPS)
    assert 1 <= count[0] <= LAYOUTS[zoo.name]
    total = count[0]
    for name in names:
        method = METHODS[name]
        with may_warn(), keystep.accelerate(plain_pipe, method):
            expected = zoo.sample(plain_pipe, steps=STEPS)
        count[0] = 0
        with may_warn(), keystep.accelerate(pipe, method) as session:
            first = zoo.sample(pipe, steps=STEPS)
            num_first, count[0] = count[0], 0
            second = zoo.sample(pipe, steps=STEPS)
        assert count[0] == 0, f"{name}: the second generation compiled anew"
        variants = count_variants(session.trace, method.policy(spec.name, STEPS))
        assert num_first <= LAYOUTS[zoo.name] * variants, name
        torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(first, second), name
        total += num_first
    assert max(LAYOUTS[zoo.name], 2) < total <= GRAPHS_PER_FORWARD // 2, "room for another batch size"


def test_whole_model_compile_is_refused() -> None:
    pipe = WAN.build()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    with pytest.raises(ValueError, match="compile its blocks instead"):
        keystep.enable(pipe, "adacache")


def test_compiling_after_attaching_is_an_error_not_a_silent_loss(
    graphs: tuple[list[int], Callable[..., Any]],
) -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, "adacache"):
        pipe.transformer.blocks[0].compile(backend=graphs[1])
        with pytest.raises(RuntimeError, match="compile first"):
            WAN.sample(pipe)
