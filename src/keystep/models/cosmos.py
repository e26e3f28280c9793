"""Cosmos-Predict 1, 2 and 2.5 (arXiv 2501.03575, 2511.00062): one call per guidance branch."""

from keystep.models.spec import ModelSpec

COSMOS = ModelSpec(
    name="cosmos",
    transformer="CosmosTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states",),
    exit="norm_out",
    attention={"self": "transformer_blocks.{}.attn1", "cross": "transformer_blocks.{}.attn2"},
    residual={"self": "transformer_blocks.{}.norm2"},
    mlp={"self": "transformer_blocks.{}.ff"},
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "attention_mask",
        "condition_mask",
        "padding_mask",
    ),
    guidance="separate:cond,uncond",
    time="time_embed.t_embedder",
)
