"""L8: regionally compiled blocks keep whole graphs, few of them, none anew in the second generation, and the
result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import keystep
from keystep.engine.compiled import GRAPHS_PER_FORWARD
from tests.zoo import COGVIDEOX, LATTE, VCHITECT, WAN, Zoo

METHODS: dict[str, Any] = {
    "fastercache": keystep.FasterCache(),
    "attention only": keystep.FasterCache(cfg=False),
    "adacache+moreg": keystep.AdaCache(codebook={5.0: 3}, native=16, moreg=True),
}
# Input layouts a plain run compiles for, times (guidance rows: all, conditional only) x (computed, skipped
# attention).
LAYOUTS = {"latte": 3, "cogvideox": 2, "wan": 1, "vchitect": 2}  # the last block has no text output
VARIANTS = {"fastercache": 4, "attention only": 2, "adacache+moreg": 1}


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


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN, VCHITECT], ids=lambda zoo: zoo.name)
@pytest.mark.parametrize("name", METHODS)
def test_compiled_blocks(zoo: Zoo, name: str, graphs: tuple[list[int], Callable[..., Any]]) -> None:
    count, backend = graphs
    pipe = zoo.build()
    with keystep.accelerate(pipe, METHODS[name]) as session:
        eager = zoo.sample(pipe)
    for list_name in session.spec.blocks:
        for block in pipe.transformer.get_submodule(list_name):
            block.compile(fullgraph=True, backend=backend)
    zoo.sample(pipe)
    num_plain, count[0] = count[0], 0
    with keystep.accelerate(pipe, METHODS[name]) as session:
        first = zoo.sample(pipe)
        num_first, count[0] = count[0], 0
        second = zoo.sample(pipe)
    assert session.trace is not None
    assert any(row.skipped for row in session.trace.rows)
    torch.testing.assert_close(first, eager, rtol=1e-5, atol=1e-5)
    assert torch.equal(first, second)
    assert num_plain <= LAYOUTS[zoo.name]
    assert 1 <= num_first <= LAYOUTS[zoo.name] * VARIANTS[name]
    assert count[0] == 0, "the second generation compiled anew"
    assert num_plain + num_first <= GRAPHS_PER_FORWARD


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
