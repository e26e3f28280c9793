"""keystep: compute the key steps, reuse the rest."""
