"""Where tokens are dealt out to the ranks and put together again, model by model. Data.

Between the two, every rank has its share of the tokens of every frame. What is local to a token or to a place
needs no exchange; attention that looks further is listed with the way in which it is exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from keystep.errors import unknown

Exchange = Literal["rows", "heads", "keys"]


@dataclass(frozen=True)
class Cut:
    """How a tensor is cut.

    Attributes:
        dim: the axis with the tokens, counted from the front; what has no such axis stays as it is.
        of: `"video"`: a multiple of the tokens of a frame lies along it; `"text"`: a multiple of the text's;
            `"joint"`: the text's tokens, then the video's.
        is_grid: `dim` and the next axis are rows and columns of tokens.
    """

    dim: int
    of: Literal["video", "text", "joint"] = "video"
    is_grid: bool = False


@dataclass(frozen=True)
class ShardPlan:
    """Where a transformer's tokens are cut, exchanged and gathered. Module names are relative to it.

    Attributes:
        outputs: module -> how its output, or every tensor in it, is cut.
        gather: the module whose output is put together again, along axis 1.
        attention: pattern of attention modules, `{}` standing for the block index -> what is exchanged:
            `"rows"`, each a sequence of its own, before the projections; `"heads"` of query, key and value;
            `"keys"`, all keys and values to all ranks, where they are few.
        inputs: argument of the transformer -> how it is cut.
        whole: module -> place of a positional argument -> argument of the transformer, cut by `inputs`, that
            this module is given whole.
        arguments: pattern of blocks -> arguments of theirs that are cut, and how. A number counts tokens.
    """

    outputs: Mapping[str, Cut]
    gather: str
    attention: Mapping[str, Exchange]
    inputs: Mapping[str, Cut] = field(default_factory=dict)
    whole: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Cut]] = field(default_factory=dict)


_LATTE = ShardPlan(
    outputs={"pos_embed": Cut(1)},
    gather="proj_out",
    attention={"transformer_blocks.{}.attn1": "rows"},
    arguments={"temporal_transformer_blocks.{}": {"timestep": Cut(0)}},
)
_WAN = ShardPlan(
    inputs={"timestep": Cut(1)},  # in Wan 2.2's 5B one for every token
    outputs={"patch_embedding": Cut(3, is_grid=True), "rope": Cut(1)},
    gather="proj_out",
    attention={"blocks.{}.attn1": "heads"},
)
PLANS: dict[str, ShardPlan] = {
    "latte": _LATTE,
    "toy": _LATTE,
    "opensora-plan": _LATTE,
    "opensora": ShardPlan(
        outputs={"pos_embedder": Cut(1)}, gather="final_layer", attention={"spatial_blocks.{}.attn": "rows"}
    ),
    "cogvideox": ShardPlan(
        inputs={"encoder_hidden_states": Cut(1, "text"), "image_rotary_emb": Cut(0)},
        whole={"patch_embed": {0: "encoder_hidden_states"}},
        outputs={"patch_embed": Cut(1, "joint")},
        gather="proj_out",
        attention={"transformer_blocks.{}.attn1": "heads"},
    ),
    "vchitect": ShardPlan(
        outputs={"pos_embed": Cut(1), "context_embedder": Cut(1, "text")},
        gather="proj_out",
        attention={
            "transformer_blocks.{}.attn.within_frames": "heads",
            "transformer_blocks.{}.attn.to_text": "keys",
        },
    ),
    "wan": _WAN,
    "toy-flow": _WAN,
    "chronoedit": _WAN,
    "hunyuanvideo": ShardPlan(
        inputs={"encoder_attention_mask": Cut(1, "text")},
        whole={"context_embedder": {2: "encoder_attention_mask"}},
        outputs={"x_embedder": Cut(1), "context_embedder": Cut(1, "text"), "rope": Cut(0)},
        gather="proj_out",
        attention={"transformer_blocks.{}.attn": "heads", "single_transformer_blocks.{}.attn": "heads"},
        arguments={  # tokens of a first frame that is given
            "transformer_blocks.{}": {"num_tokens": Cut(0)},
            "single_transformer_blocks.{}": {"num_tokens": Cut(0)},
        },
    ),
    "ltx": ShardPlan(
        inputs={"timestep": Cut(1)},  # one for every token where a frame is given
        outputs={"proj_in": Cut(1), "rope": Cut(1)},
        gather="proj_out",
        attention={"transformer_blocks.{}.attn1": "heads"},
    ),
}


def find_plan(name: str) -> ShardPlan:
    """The plan of a model.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in PLANS:
        raise ValueError(f"ulysses: {unknown('plan for sequence parallelism, model', name, PLANS)}")
    return PLANS[name]
