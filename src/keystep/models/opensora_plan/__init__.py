"""Open-Sora-Plan 1.1: text to 65 or 221 frames of 512 x 512."""
