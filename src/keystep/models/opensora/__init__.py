"""Open-Sora 1.2: text, images or videos to video."""
