"""The user's archive becomes a manifest of prepared examples. Knows no diffusion."""
