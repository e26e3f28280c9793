"""A norm that only a skipped module reads is skipped with it, and nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

import keystep
from keystep.how import Hold
from keystep.models.registry import SPECS, find_spec
from keystep.models.spec import ModelSpec
from keystep.policy import Policy, Rule
from keystep.what import Attention, AttentionResidual, Mlp, Site, Span
from keystep.when import Codebook, Every, RelativeChange
from tests.capability.subjects import SUBJECTS, pipe_of
from tests.laws.instruments import transformers

pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
]
STEPS = 4
SITES: tuple[Site, ...] = (Attention(), Attention(("cross",)), Mlp())
ALL_PARTS = Policy(tuple(Rule(site, Every(2), Hold()) for site in SITES), is_partial=True)


# One of each spec that has norms.
MODELS = (
    *("latte", "opensora-plan", "opensora", "vchitect", "wan", "wan-vace", "chronoedit", "skyreels-v2"),
    *("wan-animate", "helios", "anyflow", "hunyuan", "framepack", "hunyuan-1.5", "motif", "ltx", "ltx-2"),
    *("mochi", "allegro", "sana-video", "kandinsky-5"),
)


def spec_of(model: str) -> ModelSpec:
    pipe = pipe_of(model)
    return find_spec(pipe.transformer, pipe)


def pairs_of(pipe: Any) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """A name for each module that a spec gives a norm, the module, and the norm."""
    for model, module in transformers(pipe).items():
        spec = find_spec(module, pipe)
        for path in spec.blocks_in_order(module):
            children = dict(module.get_submodule(path).named_children())
            for part, norm in spec.norms.items():
                if part in children and norm in children:
                    yield f"{model}.{path}.{part}", children[part], children[norm]


@contextmanager
def counted(pipe: Any) -> Iterator[tuple[Counter[str], Counter[str]]]:
    """How often each of these modules, and its norm, is computed."""
    parts, norms = Counter[str](), Counter[str]()

    def counting(calls: Counter[str], name: str, forward: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return forward(*args, **kwargs)

        return count

    with ExitStack() as stack:
        for name, part, norm in pairs_of(pipe):
            for calls, module in ((parts, part), (norms, norm)):
                patched = patch.object(module, "forward", counting(calls, name, module.forward))
                stack.enter_context(patched)
        yield parts, norms


def test_every_transformer_with_norms_is_here() -> None:
    with_norms = {spec.transformer for spec in SPECS.values() if spec.norms}
    assert {spec_of(model).transformer for model in MODELS} == with_norms


@pytest.mark.parametrize("model", MODELS)
def test_norms_are_computed_as_often_as_what_reads_them(model: str) -> None:
    pipe = pipe_of(model)
    with counted(pipe) as (plain, _):
        SUBJECTS[model].sample(pipe, 1, True, STEPS)
    with counted(pipe) as (parts, norms), keystep.accelerate(pipe, ALL_PARTS):
        SUBJECTS[model].sample(pipe, 1, True, STEPS)
    assert norms == parts
    assert set(parts) == set(plain)
    assert all(parts[name] < plain[name] for name in plain)


@pytest.mark.parametrize("model", MODELS)
def test_nobody_else_reads_them(model: str) -> None:
    pipe = pipe_of(model)
    with keystep.accelerate(pipe, ALL_PARTS):
        skipped = SUBJECTS[model].sample(pipe, 1, True, STEPS)
    with keystep.accelerate(pipe, ALL_PARTS, spec=replace(spec_of(model), norms={})):
        computed = SUBJECTS[model].sample(pipe, 1, True, STEPS)
    assert torch.equal(skipped, computed)


def test_what_is_measured_at_a_skipped_norm_is_seen() -> None:
    """Latte's blocks are measured at the norm in front of the feed-forward."""
    pipe, probe = pipe_of("latte"), AttentionResidual()
    measured = Rule(Span(), Codebook(((100.0, 1),), distance=RelativeChange(probe)), Hold())
    skipping = Rule(Mlp(), Every(2), Hold())
    with keystep.accelerate(pipe, Policy((skipping, measured))) as session:
        SUBJECTS["latte"].sample(pipe, 1, True, STEPS)
    trace = session.trace
    assert trace is not None
    seen = {row.evaluation for row in trace.rows if row.signals}
    assert any(row.skipped and row.evaluation in seen for row in trace.rows)
