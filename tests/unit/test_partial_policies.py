"""Rules on kinds that a model lacks: an error, or with `is_partial` a note, as long as one matches."""

from __future__ import annotations

from collections import Counter

import pytest

import keystep
from keystep import Policy, Rule
from keystep.how import Hold
from keystep.what import Attention, Mlp
from keystep.when import Every
from tests.matrix import pipe_of
from tests.zoo import COGVIDEOX, LATTE, OPENSORA, WAN

WHEN = Every(2, start=3)


def policy(*sites: Attention | Mlp, is_partial: bool = True) -> Policy:
    return Policy(tuple(Rule(site, WHEN, Hold()) for site in sites), is_partial=is_partial)


def test_what_is_absent_stands_aside_with_a_note() -> None:
    pipe = pipe_of(COGVIDEOX)
    sites = (Attention(("joint",)), Attention(("spatial",)), Mlp(first=100))
    with keystep.accelerate(pipe, policy(*sites)) as session:
        COGVIDEOX.sample(pipe, steps=6)
    trace = session.trace
    assert trace is not None
    assert set(trace.rows[0].decisions) == {"attention[joint]"} and trace.count_skips("attention[joint]") == 2
    assert [note.split(" stands aside")[0] for note in trace.notes] == ["attention[spatial]", "mlp[100:]"]


def test_a_policy_of_which_nothing_is_left_is_an_error() -> None:
    with (
        pytest.raises(
            ValueError, match="none of its rules matches a site of WanTransformer3DModel.*self, cross"
        ),
        keystep.accelerate(pipe_of(WAN), policy(Attention(("spatial",)), Attention(("temporal",)))),
    ):
        pass


def test_without_the_flag_every_rule_must_match() -> None:
    sites = (Attention(("self",)), Attention(("spatial",)))
    with (
        pytest.raises(ValueError, match=r"attention\[spatial\] matches no site"),
        keystep.accelerate(pipe_of(WAN), policy(*sites, is_partial=False)),
    ):
        pass


def test_a_site_with_one_unknown_kind_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match=r"attention\[self,spatial\] matches no site"),
        keystep.accelerate(pipe_of(WAN), policy(Attention(("self", "spatial")), is_partial=False)),
    ):
        pass


def test_cross_covers_every_cross_attention() -> None:
    """Open-Sora has two kinds of them, Latte one; Attention() has none."""
    for zoo, names in ((OPENSORA, "cross_attn"), (LATTE, "attn2")):
        pipe, seen = pipe_of(zoo), Counter[str]()
        handles = [
            module.register_forward_hook(lambda *_, seen=seen: seen.update(["calls"]))
            for name, module in pipe.transformer.named_modules()
            if name.endswith((f"{names}.to_q", f"{names}.q_linear"))
        ]
        counts = []
        for method in (
            policy(Attention(("cross",)), is_partial=False),
            policy(Attention(), is_partial=False),
        ):
            seen.clear()
            with keystep.accelerate(pipe, method):
                zoo.sample(pipe, steps=6)
            counts.append(seen["calls"])
        for handle in handles:
            handle.remove()
        assert handles and counts[0] * 6 == counts[1] * 4, f"{zoo.name}: two of six are skipped"


@pytest.mark.parametrize(
    ("sites", "is_twice"),
    [
        ((Attention(), Attention(("cross",))), False),
        ((Attention(), Attention(("temporal-cross",))), False),
        ((Attention(), Attention(("spatial",))), True),
        ((Attention(("cross",)), Attention(("spatial-cross",))), True),
        ((Attention(("spatial-cross",)), Attention(("temporal-cross",))), False),
        ((Attention(), Attention()), True),
        ((Mlp(last=3), Mlp(first=4)), False),
        ((Mlp(last=3), Mlp(("spatial",), first=3)), True),
        ((Mlp(("spatial",)), Mlp(("temporal",))), False),
    ],
)
def test_two_rules_on_one_site(sites: tuple[Attention | Mlp, ...], is_twice: bool) -> None:
    if is_twice:
        with pytest.raises(ValueError, match="two rules on one site"):
            policy(*sites)
    else:
        assert len(policy(*sites).rules) == 2
