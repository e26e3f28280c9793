"""Models that keystep knows how to accelerate."""
