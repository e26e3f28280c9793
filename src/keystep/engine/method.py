"""What a method is to a session: policies for lengths of run, all with the sites that one of them shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from keystep.engine.checks import leave_out
from keystep.models.spec import ModelSpec
from keystep.policy import Policy

OUTLINE_EVALUATIONS = 50  # length of run at which a method's sites are looked up when attaching


class Method(Protocol):
    """Anything that makes a policy for a model and a number of evaluations."""

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy."""
        ...


def outline_length(method: Method) -> int:
    """The length of run at which a method shows its sites."""
    return getattr(method, "outline", OUTLINE_EVALUATIONS)


def policy_for(
    method: Method, num_evaluations: int, spec: ModelSpec, models: Mapping[str, nn.Module]
) -> Policy:
    """The method's policy, less what a partial one has for sites these models lack."""
    policy = method.policy(spec.name, num_evaluations)
    for module in models.values():
        policy = leave_out(policy, spec, module)
    return policy


def outline_of(method: Method, spec: ModelSpec, models: Mapping[str, nn.Module]) -> Policy:
    """The policy by which seats and taps are put in place.

    Raises:
        ValueError: it is empty.
    """
    outline = policy_for(method, outline_length(method), spec, models)
    if not outline.rules:
        raise ValueError(f"policy {outline.name!r}: it has no rules, so nothing would be skipped")
    return outline


def check_outline(method: Method, outline: Policy, policy: Policy) -> None:
    """Raise if a policy has rules that its outline did not show: they would be idle."""
    known = {rule.what for rule in outline.rules}
    for rule in policy.rules:
        if rule.what not in known:
            raise ValueError(
                f"policy {policy.name!r}: {rule.label} shows up for this length of run only; "
                "a method may leave sites out, but not add ones it does not have at "
                f"{outline_length(method)} evaluations"
            )
