"""The matrix of tests: methods x models x batch sizes x guidance, and a sampler for bare transformers.

The full product is slow, so most laws take `pairs()`: the first methods on every model, the others on two,
with batch sizes, guidance and layouts dealt out so that every pair of values meets somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

import keystep
from keystep import AdaCache, FasterCache, MoReg, Policy, Rule, Session
from keystep.how import FrequencyBands, Hold, Linear
from keystep.methods import (
    FORA,
    PAB,
    DBCache,
    DiCache,
    EasyCache,
    FBCache,
    MagCache,
    SeaCache,
    TaylorSeer,
    TeaCache,
)
from keystep.what import Attention, Branch, Span
from keystep.when import Always, Every
from tests.zoo import STEPS, ZOO, Zoo

# Constants that really skip on random weights within STEPS evaluations.
METHODS: dict[str, Any] = {
    "fastercache": FasterCache(),
    "fastercache-attention": FasterCache(cfg=False),
    "fastercache-cfg": FasterCache(attention=False),
    "adacache": AdaCache({5.0: 3}, native=STEPS),
    "adacache+moreg": AdaCache({0.5: 4, 5.0: 2}, native=STEPS, moreg=MoReg(exponent=1.0, gradient=1.0)),
    "adacache+cfg": AdaCache({5.0: 3}, native=STEPS, cfg=True),
    "pab": PAB(),
    "pab+cfg": PAB("default", cfg=True),
    "teacache": TeaCache(0.6, "plain"),
    "teacache+cfg": TeaCache(0.6, "plain", cfg=True),
    "fbcache": FBCache(2.0, max_consecutive=2),
    "dbcache": DBCache(1, 1, threshold=2.0, warmup=3, max_consecutive=2, order=1),
    "dbcache+cfg": DBCache(2, warmup=4, mask="CsCssCs", static=True, cfg=True),
    "fora": FORA(interval=2),
    "taylorseer": TaylorSeer(interval=3),
    "taylorseer-lite+cfg": TaylorSeer(interval=3, lite=True, cfg=True),
    "easycache": EasyCache(0.7),
    "dicache": DiCache(0.7, is_relative=False),
    "dicache+cfg": DiCache(0.3, depth=2, cfg=True),
    "magcache+cfg": MagCache((1.0, *[0.98] * (STEPS - 1)), cfg=True),
    "seacache": SeaCache(9.0, order=0),
    "seacache+cfg": SeaCache(9.0, cfg=True),
}
CORE = (
    5  # the first so many run on every model, the others on one with batched and one with separate guidance
)

ALL_SITES = (Branch(), Span(), Attention())
PREDICTORS = (FrequencyBands(), Hold(), Linear())


def everywhere(when: Any, name: str) -> Policy:
    """One rule on every kind of site."""
    return Policy(tuple(Rule(s, when, p) for s, p in zip(ALL_SITES, PREDICTORS, strict=True)), name)


NEVER: dict[str, Any] = {
    "always": everywhere(Always(), "always"),
    "every1": everywhere(Every(1), "every1"),
    "codebook1": AdaCache({5.0: 1}, native=STEPS, moreg=True),
}
LAYOUTS = ("batched:uncond,cond", "batched:cond,uncond", "separate:cond,uncond")


def zoo_params() -> list[Any]:
    return [pytest.param(zoo, id=zoo.name) for zoo in ZOO]


def methods_for(zoo: Zoo) -> list[str]:
    """The methods whose laws are checked on a model."""
    alike = [other for other in ZOO if other.layouts == zoo.layouts]
    place = alike.index(zoo)
    return [name for j, name in enumerate(METHODS) if j < CORE or j % len(alike) == place]


def pairs() -> list[Any]:
    """(zoo, method name, batch, guided): the models' methods, batch sizes and guidance dealt out pairwise."""
    rows = []
    names = list(METHODS)
    for i, zoo in enumerate(ZOO):
        for name in methods_for(zoo):
            j = names.index(name)
            batch = 1 + (i + j) % 2
            is_guided = (i + 2 * j) % 3 != 0 or "cfg" in name
            guidance = "guided" if is_guided else "unguided"
            rows.append(
                pytest.param(zoo, name, batch, is_guided, id=f"{zoo.name}-{name}-B{batch}-{guidance}")
            )
    return rows


@cache
def pipe_of(zoo: Zoo) -> Any:
    """One pipeline of each kind for all tests: leaving a context restores it exactly, or a law fails."""
    return zoo.build()


@cache
def plain(
    zoo: Zoo, batch: int = 1, is_guided: bool = True, steps: int = STEPS, seed: int = 0
) -> torch.Tensor:
    """Latents of the plain pipeline, made by a pipeline of its own."""
    return zoo.sample(_untouched(zoo), batch=batch, seed=seed, steps=steps, scale=scale_of(is_guided))


@cache
def _untouched(zoo: Zoo) -> Any:
    return zoo.build()


def scale_of(is_guided: bool) -> float:
    return 4.0 if is_guided else 1.0


# ------------------------------------------------------------------ a sampler for bare transformers


def times_of(steps: int) -> list[float]:
    """Uneven timesteps from 999 down, like a shifted flow schedule."""
    sigmas = [1 - k / steps for k in range(steps)]
    return [999.0 * 3 * s / (1 + 2 * s) for s in sigmas]


def conditions(zoo: Zoo, batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    texts = zoo.texts(batch, torch.Generator().manual_seed(seed))
    return {"uncond": texts["negative_prompt_embeds"], "cond": texts["prompt_embeds"]}


def evaluate(
    zoo: Zoo, pipe: Any, x: torch.Tensor, time: float, texts: dict[str, torch.Tensor], layout: str
) -> dict[str, torch.Tensor]:
    """Both branches at one noise level, in any layout; with one text only, one plain call."""
    kind, _, order = layout.partition(":")
    names = [name for name in order.split(",") if name in texts]
    if kind == "batched" and len(names) > 1:
        arguments = zoo.inputs(pipe, torch.cat([x] * 2), time, torch.cat([texts[n] for n in names]))
        return dict(zip(names, pipe.transformer(**arguments)[0].chunk(2), strict=True))
    return {n: pipe.transformer(**zoo.inputs(pipe, x, time, texts[n]))[0] for n in names}


@torch.no_grad()
def drive(
    zoo: Zoo,
    pipe: Any,
    layout: str,
    session: Session | None = None,
    batch: int = 1,
    is_guided: bool = True,
    steps: int = STEPS,
    seed: int = 0,
) -> torch.Tensor:
    """A small Euler sampler around the bare transformer; tells the session when evaluations begin and end."""
    texts, times = conditions(zoo, batch, seed), times_of(steps)
    if not is_guided:
        texts.pop("uncond")
    x = zoo.arguments(batch, seed)["latents"]
    axis = 2 if zoo.latent[1] == 4 else 1  # CogVideoX latents are frames first
    if session is not None:
        session.begin(steps, is_guided, times, [time / 999.0 for time in times])
    for k, time in enumerate(times):
        outputs = {
            name: value.narrow(axis, 0, 4)
            for name, value in evaluate(zoo, pipe, x, time, texts, layout).items()
        }
        guided = outputs["cond"]
        if is_guided:
            guided = outputs["uncond"] + 4.0 * (outputs["cond"] - outputs["uncond"])
        after = times[k + 1] if k + 1 < steps else 0.0
        x = x + guided / guided.std() * (after - time) / 999.0
        if session is not None:
            session.step()
    return x


def accelerated_drive(
    zoo: Zoo, method: Any, layout: str, **kwargs: Any
) -> tuple[torch.Tensor, keystep.Trace]:
    """`drive` under a method; returns the latents and the trace."""
    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe.transformer, method, guidance=layout) as session:
        latents = drive(zoo, pipe, layout, session, **kwargs)
    assert session.trace is not None
    return latents, session.trace


def decisions(trace: keystep.Trace) -> dict[str, str]:
    """One letter per evaluation and rule, "C" computed or "s" skipped."""
    labels = trace.rows[0].decisions
    return {
        label: "".join("C" if row.decisions[label].action == "compute" else "s" for row in trace.rows)
        for label in labels
    }


def spread(*names: str) -> Iterator[tuple[Zoo, str]]:
    """Each named method with a model of its own, going round the zoo."""
    for i, name in enumerate(names):
        yield ZOO[i % len(ZOO)], name
