"""Losses, trainer, checkpoints, saved models."""
