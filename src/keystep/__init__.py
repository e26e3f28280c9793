"""keystep: compute the key steps, reuse the rest.

    import keystep

    with keystep.accelerate(pipe, "fastercache") as run:
        video = pipe("a red circle moving left").frames
    print(run.summary())
"""

from keystep.api import accelerate, disable, enable, load
from keystep.engine.session import KeystepWarning, Session
from keystep.engine.trace import Trace
from keystep.methods import AdaCache, FasterCache, MoReg
from keystep.models.spec import ModelSpec
from keystep.policy import Policy, Rule

__version__ = "0.1.0"

__all__ = [
    "AdaCache",
    "FasterCache",
    "KeystepWarning",
    "ModelSpec",
    "MoReg",
    "Policy",
    "Rule",
    "Session",
    "Trace",
    "accelerate",
    "disable",
    "enable",
    "load",
]
