"""Trained weights and a prompt become pictures."""
