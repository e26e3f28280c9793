"""keystep behind diffusers' own switch: `pipe.transformer.enable_cache(keystep.CacheConfig(pipe, ...))`.

`CacheMixin.enable_cache` takes diffusers' own classes of settings and no others. The settings of its
TaylorSeer name the modules to hook, and none may match: then diffusers changes nothing, and has asked us
which modules when it was time to attach. `disable_cache` takes hooks of a known name away and tells them; one
of ours has that name. Nothing of diffusers is replaced, and a trial on an empty module shows first that it is
all so.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.hooks.taylorseer_cache import _TAYLORSEER_CACHE_HOOK as HOOK
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from torch import nn

from keystep.api import session_for
from keystep.engine.method import Method
from keystep.engine.storage import Storage
from keystep.models.spec import ModelSpec
from keystep.what import Guidance

NOTHING = "(?!)"  # a pattern that no name matches


class Settings(TaylorSeerCacheConfig):
    """Settings that are told when diffusers enables and disables them, and let it hook nothing.

    Attributes:
        transformer: the one to be enabled on.
        is_enabled: whether they are in force.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.is_enabled = False

    @property  # the base class has a plain attribute
    def cache_identifiers(self) -> list[str]:
        """Asked for by `enable_cache`: patterns of the modules that diffusers shall hook."""
        if not self.is_enabled:
            self.enter()
            HookRegistry.check_if_exists_or_initialize(self.transformer).register_hook(Leaving(self), HOOK)
            self.is_enabled = True
        return [NOTHING]

    @cache_identifiers.setter
    def cache_identifiers(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, value: list[str] | None
    ) -> None:
        assert value is None, "the default that the base class sets"

    @abstractmethod
    def enter(self) -> None:
        """They come into force."""

    @abstractmethod
    def leave(self) -> None:
        """They are no longer in force."""


class Leaving(ModelHook):
    """A hook that does nothing but tell its settings when it is taken away."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def deinitalize_hook(self, module: nn.Module) -> nn.Module:
        """Called by `disable_cache` (spelled as diffusers spells it)."""
        self.settings.is_enabled = False
        self.settings.leave()
        return module


class CacheConfig(Settings):
    """A method as settings for diffusers' `enable_cache`.

    Args:
        pipe: the pipeline whose `transformer` it will be enabled on. The clock of a generation is the
            pipeline's scheduler, of which a transformer knows nothing.
        method, spec, guidance, storage, options: as in `keystep.accelerate`.

    Attributes:
        session: what happens while it is enabled: `.summary()`, `.trace`.

    Raises:
        ValueError: as `keystep.accelerate`, here or in `enable_cache`.
        RuntimeError: this version of diffusers does not tell settings when they are enabled or disabled.
    """

    def __init__(
        self,
        pipe: Any,
        method: str | Method,
        *,
        spec: ModelSpec | None = None,
        guidance: str | Guidance | None = None,
        storage: Storage | None = None,
        **options: Any,
    ) -> None:
        check_diffusers()
        self.session = session_for(pipe, method, options, spec, guidance, storage)
        self.session.entry = self
        super().__init__(next(iter(self.session.models.values())))

    def __repr__(self) -> str:
        return f"CacheConfig({self.session.method!r})"

    def enter(self) -> None:
        """Attach."""
        self.session.attach()

    def leave(self) -> None:
        """Restore the pipeline."""
        self.session.close()


class Trial(Settings):
    """Settings that note what they are told."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        self.told: list[str] = []

    def enter(self) -> None:
        """Enabled."""
        self.told.append("enabled")

    def leave(self) -> None:
        """Disabled."""
        self.told.append("disabled")


class Empty(nn.Module, CacheMixin):
    """A module to try settings on."""


def check_diffusers() -> None:
    """Raise if enabling would pass us by, for then nothing would be skipped and nobody told."""
    module = Empty()
    trial = Trial(module)
    module.enable_cache(trial)
    module.disable_cache()
    if trial.told != ["enabled", "disabled"]:
        raise RuntimeError(
            "enable_cache: this version of diffusers does not read settings as 0.42 does; use "
            "keystep.enable(pipe, ...) and keystep.disable(pipe) instead"
        )
