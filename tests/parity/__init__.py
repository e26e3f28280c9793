"""Parity with recorded runs of reference implementations: `python -m tests.parity DIR`.

DIR is walked recursively; every folder may hold cases. Shapes, batch sizes, step counts, channels and names
are read from the files; configs, weights, schedulers and decision logs are the nearest ones (same folder,
else its parent).

What is compared:

- `transformer_forward*.safetensors`: one forward, its output and `mid.*` (outputs of modules of these names).
- `*trajectory_*.safetensors`: a whole generation, evaluation by evaluation. Files with `latents` are of a
  scheduler that diffusers has: they run freely from the first latents, by hand and through the real pipeline
  class, and outputs and latents are compared. Files with `x` are of another sampler: the recorded latents are
  fed and the outputs compared.
- `decision_log.json`: what was computed and what was reused in every evaluation, how many rows really went
  through the attention modules, and how strong the rebuilt difference between the branches was in each band.
- `adacache_vectors*.json`, `units*.json`, `fft_units*.json`: decisions and band splits on their own.

Variants: `plain` runs through the engine with a policy that never skips; `fc_fixed` runs FasterCache.
Reference code counts evaluations with fixed numbers, whatever the length of the run. So a trajectory of the
preset's own length uses `keystep.FasterCache(preset=...)`, and one of any other length the same numbers
unscaled, which is what its log recorded.

CogVideoX runs as diffusers has it. The original code normalises with another epsilon before the final
projection (1e-6, diffusers 1e-5), which accounts for some 4e-6 of the errors of its trajectories.

Kinds that keystep cannot run are listed as `n/a` with the reason; `n/a` never fails.
"""
