"""diffusers' own switch: what it turns on is what `accelerate` does, what it turns off is gone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.cache_utils import CacheMixin

import keystep
from keystep import CacheConfig
from tests.laws.instruments import transformers
from tests.matrix import METHODS, pipe_of, plain
from tests.zoo import COGVIDEOX, LATTE, OPENSORA, VCHITECT, WAN, WAN22, Zoo

ZOOS = pytest.mark.parametrize(
    "zoo", [LATTE, COGVIDEOX, WAN, WAN22, VCHITECT, OPENSORA], ids=lambda zoo: zoo.name
)


@pytest.fixture
def pipe() -> Any:
    return WAN.build()


@ZOOS
def test_the_switch_does_what_accelerate_does(zoo: Zoo) -> None:
    method = METHODS["fastercache"]
    with keystep.accelerate(pipe_of(zoo), method):
        expected = zoo.sample(pipe_of(zoo))
    pipe = zoo.build()
    config = CacheConfig(pipe, method)
    for _ in range(2):
        for transformer in transformers(pipe).values():
            transformer.enable_cache(config)
        assert pipe.transformer.is_cache_enabled
        assert torch.equal(zoo.sample(pipe), expected)
        assert any(row.skipped for row in config.session.trace.rows)
        for transformer in transformers(pipe).values():
            transformer.disable_cache()
        assert not pipe.transformer.is_cache_enabled
        assert torch.equal(zoo.sample(pipe), plain(zoo))
        assert not hasattr(pipe.scheduler.step, "keystep_session")


def test_diffusers_hooks_nothing_of_its_own(pipe: Any) -> None:
    pipe.transformer.enable_cache(CacheConfig(pipe, "adacache"))
    hooked = [name for name, module in pipe.transformer.named_modules() if hasattr(module, "_diffusers_hook")]
    assert hooked == [""], "our own, at the top"
    assert "AdaCache" in repr(pipe.transformer._cache_config)


def test_what_is_on_already_is_an_error_both_ways(pipe: Any) -> None:
    pipe.transformer.enable_cache(CacheConfig(pipe, "adacache"))
    with pytest.raises(ValueError, match="already been enabled"):
        pipe.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(ValueError, match="disable_cache"):
        keystep.enable(pipe, "fastercache")
    assert torch.isfinite(WAN.sample(pipe)).all(), "the first is still in force"
    pipe.transformer.disable_cache()
    with keystep.accelerate(pipe, "adacache"):
        with pytest.raises(ValueError, match="already accelerated"):
            pipe.transformer.enable_cache(CacheConfig(pipe, "adacache"))
        assert not pipe.transformer.is_cache_enabled


def test_disable_undoes_it_whole(pipe: Any) -> None:
    plain = WAN.sample(pipe)
    pipe.transformer.enable_cache(CacheConfig(pipe, "adacache"))
    keystep.disable(pipe)
    assert not pipe.transformer.is_cache_enabled
    assert torch.equal(WAN.sample(pipe), plain)
    keystep.enable(pipe, "fastercache")
    keystep.disable(pipe)


def test_a_failing_method_leaves_it_off(pipe: Any) -> None:
    with pytest.raises(ValueError, match="adacahce"):
        CacheConfig(pipe, "adacahce")
    spatial = keystep.Rule(keystep.what.Attention(("spatial",)), keystep.when.Every(2), keystep.how.Hold())
    with pytest.raises(ValueError, match="kinds there"):
        pipe.transformer.enable_cache(CacheConfig(pipe, keystep.Policy((spatial,))))
    assert not pipe.transformer.is_cache_enabled
    pipe.transformer.enable_cache(CacheConfig(pipe, "adacache"))


def test_another_pipelines_transformer_is_an_error(pipe: Any) -> None:
    other = WAN.build()
    other.transformer.enable_cache(CacheConfig(pipe, "adacache"))
    with pytest.raises(RuntimeError, match="another transformer"):
        WAN.sample(pipe)


def test_a_diffusers_that_does_not_ask_is_an_error(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a cache that was enabled and does nothing."""
    monkeypatch.setattr(
        CacheMixin, "enable_cache", lambda self, config: setattr(self, "_cache_config", config)
    )
    with pytest.raises(RuntimeError, match="does not read settings"):
        CacheConfig(pipe, "adacache")
