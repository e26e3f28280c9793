"""Methods: each is a policy of one or two rules with a table of sourced constants."""

from __future__ import annotations

from keystep.methods.adacache import AdaCache, MoReg
from keystep.methods.fastercache import FasterCache
from keystep.methods.registry import METHODS, build

__all__ = ["METHODS", "AdaCache", "FasterCache", "MoReg", "build"]
