import torch

from keystep.plan.memory import PeakMemory
from keystep.plan.meta import FusedAttention

KIB = 1024


def empty(num_bytes):
    return torch.empty(num_bytes // 4, device="meta")


def test_what_is_alive_at_once_counts():
    given = empty(4 * KIB)
    with PeakMemory([given]) as memory:
        a = given + 1
        b = a * 2
        del a
        c = b - 1  # b and c: the sum is gone
        assert memory.num_bytes == memory.peak_bytes == 8 * KIB
        del b
        assert memory.num_bytes == 4 * KIB
        del c
    assert (memory.num_bytes, memory.peak_bytes) == (0, 8 * KIB)


def test_views_and_work_in_place_take_no_memory():
    given = empty(4 * KIB)
    with PeakMemory([given]) as memory:
        half = given[:10].view(2, 5)
        given.add_(1)
        assert memory.peak_bytes == 0
        made = half + 1
        view = made.t()
        del made
        assert memory.num_bytes == 40  # the view keeps it alive
        del view
    assert memory.num_bytes == 0


def test_it_counts_real_tensors_likewise():
    with PeakMemory([]) as memory:
        a = torch.ones(256)
        del a
        b = torch.ones(128)
    assert memory.peak_bytes == 1024
    assert memory.num_bytes == b.nbytes


def test_fused_attention_holds_no_scores():
    tokens = 512
    x = torch.empty(1, 2, tokens, 16, device="meta")
    mask = torch.empty(1, 1, tokens, tokens, device="meta")
    with torch.no_grad(), FusedAttention(), PeakMemory([x, mask]) as memory:
        out = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    assert out.shape == x.shape
    assert x.nbytes <= memory.peak_bytes < 2 * x.nbytes < tokens**2
