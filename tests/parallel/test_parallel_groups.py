"""Who talks to whom, who draws the noise, and what happens when ranks fail or differ."""

from __future__ import annotations

import pytest
import torch

import keystep
from keystep.engine.agreement import Agreement
from keystep.engine.measure import Measurement
from keystep.ranks.attention import Exchanged
from keystep.ranks.group import Group
from keystep.ranks.layout import Layout
from keystep.ranks.plans import find_plan
from keystep.ranks.shares import cut, shares
from keystep.what import AttentionResidual, Latent
from keystep.when import RelativeChange
from tests.parallel import work
from tests.parallel.launch import launch
from tests.parallel.work import generate, zoo_named
from tests.zoo import LATTE, STEPS

ALONE = Group(None, (0, 1), 0)  # of two, but nobody is there


def test_groups_side_by_side_do_not_touch_each_other() -> None:
    zoo = zoo_named("latte")
    for rank, latents in enumerate(launch(work.generate_apart, 4)):
        method, arguments = work.PAIRS[rank // 2]
        wanted = generate(zoo, zoo.build(), method, **arguments).latents
        assert (latents - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_one_noise_for_all_ranks() -> None:
    wanted = work.draw(work.stochastic_cogvideox(), seed=0)
    assert (work.draw(work.stochastic_cogvideox(), seed=1) - wanted).abs().max() > 0.1
    for latents in launch(work.draw_apart, 2):
        assert (latents - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_disagreement_says_who_does_what() -> None:
    for message in launch(work.disagree, 2):
        assert message.startswith("RuntimeError: ranks disagree on what to compute: rank 0: evaluation ")
        assert "span skip" in message and "span compute" in message and "rank 1: " in message


def test_a_failure_ends_all_ranks_and_leaves_nothing_behind() -> None:
    (first, first_left), (second, second_left) = launch(work.fail_on_one, 2)
    assert second == "OSError: disk full"
    assert first == "RankError: another rank failed, rank 1: OSError: disk full"
    assert first_left == second_left == []


def test_either_may_come_first() -> None:
    wanted = generate(zoo_named("opensora"), zoo_named("opensora").build(), "fastercache").latents
    for videos, said in launch(work.attach_in_orders, 2):
        for latents in videos:
            assert (latents - wanted).abs().max() < 1e-5 * wanted.abs().max()
        refused, twice = said
        assert "call keystep.disable(pipe) first" in refused
        assert "shared already" in twice


# ---------------------------------------------------------------- bad input


def test_no_launcher() -> None:
    with pytest.raises(ValueError, match="torchrun --nproc-per-node"):
        keystep.parallel(LATTE.build())


def test_ranks_that_do_not_divide() -> None:
    for message in launch(work.ask_for, 2, 3):
        assert message == "ValueError: ulysses: given 3, allowed: 1, 2 of 2 ranks, cfg=1"


def test_mixed_versions() -> None:
    for message in launch(work.mix_versions, 2):
        assert message.startswith("ValueError: keystep: ranks differ: ")
        assert "'0.0.1' on rank 1" in message


def test_more_ranks_than_tokens() -> None:
    with pytest.raises(ValueError, match="ulysses: given 2, allowed: 1 to 1, as many as a latent frame"):
        Layout(ALONE, 1, None)
    with pytest.raises(ValueError, match="ulysses: given 2, allowed: 1 to 1, as many as the text"):
        Layout(ALONE, 8, 1)


def test_model_without_plan() -> None:
    with pytest.raises(ValueError, match=r"'mochi' .*known: .*cogvideox, hunyuanvideo, latte"):
        find_plan("mochi")


def test_diffusers_own_parallelism() -> None:
    pipe = LATTE.build()
    pipe.transformer._parallel_config = object()
    with pytest.raises(ValueError, match=r"transformer: diffusers' enable_parallelism\(\)"):
        keystep.enable(pipe, "adacache")
    (message,) = launch(work.share_shared, 1)
    assert "enable_parallelism() is in force" in message


def test_attention_that_cannot_be_exchanged() -> None:
    exchanged = Exchanged("blocks.{}.attn", "heads", lambda: Layout(ALONE, 2, None))
    x = torch.ones(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match="does not go through scaled_dot_product_attention"):
        exchanged(lambda module, hidden: hidden, None, x)

    def masked(module: None, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(3, 3).bool())

    with pytest.raises(ValueError, match="a mask for each query"):
        exchanged(masked, None, x)


# ---------------------------------------------------------------- shares and sums


@pytest.mark.parametrize("total, ranks, sizes", [(7, 3, [3, 2, 2]), (8, 4, [2, 2, 2, 2]), (2, 3, [1, 1, 0])])
def test_shares(total: int, ranks: int, sizes: list[int]) -> None:
    assert shares(total, ranks) == sizes


def test_frames_are_cut_alike() -> None:
    frames = torch.arange(2 * 5).view(1, 10)  # two frames of five places
    parts = [cut(frames, 1, [3, 2], rank) for rank in (0, 1)]
    assert [part.tolist() for part in parts] == [[[0, 1, 2, 5, 6, 7]], [[3, 4, 8, 9]]]
    with pytest.raises(ValueError, match="tokens: given 10, allowed: a multiple of 4"):
        cut(frames, 1, [2, 2], 0)


class Echo(Group):
    """A group of two whose other rank has the same numbers."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


def test_whole_tensors_are_not_counted_twice() -> None:
    rule = keystep.AdaCache().policy("latte", STEPS).rules[0]
    made = [
        Measurement(rule, RelativeChange(probe), probe, torch.ones(1, 2, samples))
        for probe, samples in ((AttentionResidual(), 3), (Latent(), 1))
    ]
    part, whole = Agreement(Echo(None, (0, 1), 1)).add_up(made)
    assert part.tolist() == [[[2.0] * 3] * 2]
    assert whole.tolist() == [[[0.0]] * 2], "the first rank's count, and this is the second"


@pytest.mark.slow
def test_compiled_blocks() -> None:
    """Attention leaves the graph; where it may not, the message says so."""
    for plain, compiled, refused in launch(work.compile_blocks, 2):
        assert (compiled - plain).abs().max() < 1e-5 * plain.abs().max()
        assert "compile blocks with fullgraph=False" in refused
