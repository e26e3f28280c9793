"""The random-weight models of the bench: the wide ones are as wide as the released models."""

import pytest
import torch

from keystep.lab.shapes import NUM_LAYERS, SHAPES, WIDE
from keystep.plan.meta import build_transformer
from keystep.plan.released import BLUEPRINTS

RELEASED = {"cogvideox": "cogvideox-2b", "latte": "latte", "wan": "wan-2.1-1.3b"}
SIZES = ("num_attention_heads", "attention_head_dim", "cross_attention_dim", "ffn_dim")


@pytest.mark.parametrize("name", SHAPES)
def test_wide_models_have_the_released_widths(name: str) -> None:
    blueprint = BLUEPRINTS[RELEASED[name]]
    released = build_transformer(blueprint.transformer, blueprint.config, torch.float32)
    with torch.device("meta"):
        wide, _ = SHAPES[name].build(WIDE)
    for size in SIZES:
        assert wide.config.get(size) == released.config.get(size), size
    assert wide.config["num_layers"] <= NUM_LAYERS < released.config["num_layers"]
