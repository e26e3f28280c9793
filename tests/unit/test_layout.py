"""Layouts of guidance and cutting by branch."""

from __future__ import annotations

import pytest
import torch

from keystep.what import Attention, Branch, Guidance, Mlp, Span
from keystep.what.branch import rows_of, select_branches

BATCHED, SEPARATE = Guidance.parse("batched:uncond,cond"), Guidance.parse("separate:cond,uncond")


def test_calls() -> None:
    assert BATCHED.calls(True) == (("uncond", "cond"),)
    assert SEPARATE.calls(True) == (("cond",), ("uncond",))
    assert BATCHED.calls(False) == SEPARATE.calls(False) == (("cond",),)


def test_rows_are_branch_major() -> None:
    x = torch.arange(6)
    assert rows_of(x, "uncond", ("uncond", "cond")).tolist() == [0, 1, 2]
    assert rows_of(x, "cond", ("uncond", "cond")).tolist() == [3, 4, 5]
    assert rows_of(x, "cond", ("cond",)) is x


def test_select_branches() -> None:
    both = ("cond", "uncond")
    arguments = {
        "x": torch.arange(4),
        "shared": torch.ones(1, 3),
        "scalar": torch.tensor(3.0),
        "none": None,
        "other": torch.arange(4),
    }
    names = ("x", "shared", "scalar", "none", "missing")
    cut = select_branches(arguments, names, both, ("cond",))
    assert cut.pop("x").tolist() == [0, 1]
    assert all(value is arguments[name] for name, value in cut.items()) and len(cut) == 2
    several = select_branches({"x": [torch.arange(4), torch.ones(1, 2)]}, ("x",), both, ("uncond",))["x"]
    assert several[0].tolist() == [2, 3] and several[1].shape == (1, 2)
    whole = select_branches(arguments, names, both, both)
    assert whole["x"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="x: 3 rows do not divide"):
        select_branches({"x": torch.arange(3)}, ("x",), both, ("cond",))


def test_rows_that_all_branches_share_are_not_cut() -> None:
    """A mask with a row for each of two samples belongs to both branches of four rows."""
    both = ("cond", "uncond")
    arguments = {"x": torch.arange(4), "mask": torch.ones(2, 3), "places": torch.arange(8)}
    cut = select_branches(arguments, ("x", "mask", "places"), both, ("cond",))
    assert cut["x"].tolist() == [0, 1]
    assert cut["mask"] is arguments["mask"]
    assert cut["places"].tolist() == [0, 1, 2, 3]


def test_labels_and_coverage() -> None:
    assert [Attention().label, Attention(("self", "cross")).label] == ["attention", "attention[self,cross]"]
    assert [Span().label, Span(2).label, Branch().label] == ["span", "span[2:]", "branch[uncond]"]
    assert [Mlp().label, Mlp(first=2).label, Mlp(("a",), 2, 5).label] == ["mlp", "mlp[2:]", "mlp[a,2:5]"]
    assert Attention().covers("joint", 0) and not Attention().covers("cross", 0)
    assert Attention(("cross",)).covers("cross", 0) and not Attention(("cross",)).covers("self", 0)
    assert [block for block in range(9) if Mlp((), 2, 5).covers("self", block)] == [2, 3, 4, 5]
    assert Mlp(("self",)).covers("self", 8) and not Mlp(("self",)).covers("joint", 8)
