"""One ruler: operations of each step, bytes that stay."""

import torch

from keystep.lab.sample import count
from tests.lab.rivals import SKIPPING, STEP_FLOPS, STEPS, contestant, make_bench


def test_operations_are_counted_step_by_step():
    bench = make_bench()
    assert count(bench.pipe, bench.call("a", 0)).step_flops == (STEP_FLOPS,) * STEPS
    with SKIPPING.attach(bench):
        counted = count(bench.pipe, bench.call("a", 0))
    assert counted.step_flops == (STEP_FLOPS, 0) * (STEPS // 2)
    assert counted.flops == STEP_FLOPS * STEPS // 2
    assert counted.uncounted == ()


def test_held_bytes_are_those_of_whole_storages():
    def hold(original, state):
        def forward(x):
            output = original(x)
            state.setdefault("kept", (output * 2)[..., :1])  # a view that holds three channels
            return output

        return forward

    bench = make_bench()
    plain = count(bench.pipe, bench.call("a", 0)).held_bytes
    with contestant("holding", hold).attach(bench):
        held = count(bench.pipe, bench.call("a", 0)).held_bytes
    assert held - plain == 5 * 8 * 8 * 3 * torch.float32.itemsize
