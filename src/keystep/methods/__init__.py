"""Methods: each is a policy of one or two rules with a table of sourced constants."""

from __future__ import annotations

from keystep.methods.adacache import AdaCache, MoReg
from keystep.methods.auto import Auto
from keystep.methods.dbcache import DBCache
from keystep.methods.dicache import DiCache
from keystep.methods.easycache import EasyCache
from keystep.methods.fastercache import FasterCache
from keystep.methods.fbcache import FBCache
from keystep.methods.fora import FORA
from keystep.methods.magcache import MagCache
from keystep.methods.pab import PAB
from keystep.methods.registry import METHODS, build
from keystep.methods.seacache import SeaCache
from keystep.methods.static import Static
from keystep.methods.taylorseer import TaylorSeer
from keystep.methods.teacache import TeaCache

__all__ = [
    "FORA",
    "METHODS",
    "PAB",
    "AdaCache",
    "Auto",
    "DBCache",
    "DiCache",
    "EasyCache",
    "FBCache",
    "FasterCache",
    "MagCache",
    "MoReg",
    "SeaCache",
    "Static",
    "TaylorSeer",
    "TeaCache",
    "build",
]
