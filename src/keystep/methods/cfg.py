"""CFG-Cache beside any method: the unconditional branch is rebuilt where it can be."""

from __future__ import annotations

from dataclasses import replace

from keystep.methods.fastercache import FasterCache
from keystep.policy import Policy

CFG = "+cfg"  # end of the names of methods that have CFG-Cache beside them


def add_cfg(policy: Policy, model: str, num_evaluations: int) -> Policy:
    """The policy with FasterCache's rule on the unconditional branch (its constants for the model).

    In a full evaluation the unconditional features would be older than the conditional ones wherever that
    branch was left out before, and so would be the difference that is kept: then it is computed (`max_lag`).
    So nothing is skipped in most full evaluations, one of five or so.
    """
    follower = FasterCache(attention=False).policy(model, num_evaluations)
    rules = tuple(replace(rule, max_lag=0) for rule in policy.rules)
    return replace(
        policy,
        rules=(*follower.rules, *rules),
        name=f"{policy.name}{CFG}",
        notes=(*policy.notes, *follower.notes),
    )
