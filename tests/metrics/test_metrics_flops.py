import pytest
import torch
import torch.nn.functional as F

from keystep.metrics.flops import FlopCounter
from tests.zoo import LATTE, TEXT, TEXT_WIDTH

MODES = [torch.no_grad, torch.inference_mode, torch.enable_grad]


def attention_flops(batch: int, heads: int, queries: int, keys: int, width: int) -> int:
    scores = 2 * batch * heads * queries * keys * width
    return scores + scores  # the product with the values is as large


@pytest.mark.parametrize("mode", MODES)
def test_linear_layers_count_two_per_multiply_add(mode):
    layer, x = torch.nn.Linear(16, 32), torch.randn(4, 10, 16)
    with mode(), FlopCounter() as counter:
        layer(x)
    assert counter.total == 2 * 4 * 10 * 16 * 32


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask_shape", [None, (10, 12), (2, 3, 10, 12)])
def test_attention_counts_by_whatever_kernel_runs(mode, mask_shape):
    query, key = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 12, 8)
    mask = None if mask_shape is None else torch.zeros(mask_shape)
    with mode(), FlopCounter() as counter:
        F.scaled_dot_product_attention(query, key, key, attn_mask=mask)
    assert counter.total == attention_flops(2, 3, 10, 12, 8)
    assert not counter.uncounted


def test_the_flash_kernel_of_the_cpu_is_among_those_kernels():
    seen = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.randn(2, 3, 10, 8)
    with torch.no_grad(), Spy():
        F.scaled_dot_product_attention(x, x, x)
    assert any("flash_attention_for_cpu" in name for name in seen)


def test_convolutions_count():
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(5, 3, 3, 3)
    with torch.no_grad(), FlopCounter() as counter:
        F.conv2d(x, weight, padding=1)
    assert counter.total == 2 * 5 * 8 * 8 * 3 * 3 * 3


def test_element_wise_work_is_free():
    with FlopCounter() as counter:
        torch.randn(64, 64).sin().add(1)
    assert counter.total == 0


def test_counting_changes_no_bit():
    transformer = LATTE.build().transformer
    x = torch.randn(2, 4, 3, 8, 8)
    arguments = {
        "timestep": torch.tensor([500, 500]),
        "encoder_hidden_states": torch.randn(2, TEXT, TEXT_WIDTH),
    }
    with torch.no_grad():
        plain = transformer(x, **arguments).sample
        with FlopCounter() as counter:
            counted = transformer(x, **arguments).sample
    assert counter.total > 0
    assert torch.equal(plain, counted)


def test_attention_without_a_formula_is_named():
    @torch.library.custom_op("keystep_test::odd_attention", mutates_args=())
    def odd_attention(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    with FlopCounter() as counter:
        odd_attention(torch.randn(2))
    assert counter.uncounted == {"keystep_test.odd_attention"}
    assert counter.total == 0
