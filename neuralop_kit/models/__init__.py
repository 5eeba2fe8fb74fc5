"""Operators ready to train."""
