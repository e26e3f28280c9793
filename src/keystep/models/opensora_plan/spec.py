"""Open-Sora-Plan 1.1 (arXiv 2412.00131): Latte's sites under its own name, for constants of its own."""

from dataclasses import replace

from keystep.models.latte import LATTE

OPENSORA_PLAN = replace(LATTE, name="opensora-plan", transformer="OpenSoraPlanTransformer3DModel")
