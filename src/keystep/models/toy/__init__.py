"""A tiny text-to-video diffusion transformer that ships trained, so that every method can be tried on a CPU.

Quick start::

    from keystep.models.toy import load_toy
    frames = load_toy()("a large red circle moving left quickly on a dark background").frames
"""

from keystep.models.toy.detector import Reading, accuracy, detect
from keystep.models.toy.flow import ToyFlowPipeline
from keystep.models.toy.grammar import (
    Caption,
    development_prompts,
    held_out_prompts,
    parse_prompt,
    write_prompt_lists,
)
from keystep.models.toy.loading import load_toy, load_toy_flow
from keystep.models.toy.pipeline import ToyPipeline, ToyPipelineOutput

__all__ = [
    "Caption",
    "Reading",
    "ToyFlowPipeline",
    "ToyPipeline",
    "ToyPipelineOutput",
    "accuracy",
    "detect",
    "development_prompts",
    "held_out_prompts",
    "load_toy",
    "load_toy_flow",
    "parse_prompt",
    "write_prompt_lists",
]
