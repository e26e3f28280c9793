"""keystep: compute the key steps, reuse the rest.

import keystep

with keystep.accelerate(pipe, "fastercache") as run:
    video = pipe("a red circle moving left").frames
print(run.summary())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keystep.api import accelerate, disable, enable, load
    from keystep.cache_config import CacheConfig
    from keystep.engine.session import KeystepWarning, Session
    from keystep.engine.storage import Storage
    from keystep.engine.trace import Trace
    from keystep.methods.adacache import AdaCache, MoReg
    from keystep.methods.auto import Auto
    from keystep.methods.fastercache import FasterCache
    from keystep.models.spec import ModelSpec
    from keystep.policy import Policy, Rule
    from keystep.ranks.parallel import Parallel, parallel

__version__ = "0.1.0"

__all__ = [
    "AdaCache",
    "Auto",
    "CacheConfig",
    "FasterCache",
    "KeystepWarning",
    "MoReg",
    "ModelSpec",
    "Parallel",
    "Policy",
    "Rule",
    "Session",
    "Storage",
    "Trace",
    "accelerate",
    "disable",
    "enable",
    "load",
    "parallel",
]

_HOMES = {
    "keystep.api": ("accelerate", "disable", "enable", "load"),
    "keystep.cache_config": ("CacheConfig",),
    "keystep.engine.session": ("KeystepWarning", "Session"),
    "keystep.engine.storage": ("Storage",),
    "keystep.engine.trace": ("Trace",),
    "keystep.methods.adacache": ("AdaCache", "MoReg"),
    "keystep.methods.auto": ("Auto",),
    "keystep.methods.fastercache": ("FasterCache",),
    "keystep.models.spec": ("ModelSpec",),
    "keystep.policy": ("Policy", "Rule"),
    "keystep.ranks.parallel": ("Parallel", "parallel"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `keystep --help` does not wait for torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'keystep' has no attribute {name!r}")
