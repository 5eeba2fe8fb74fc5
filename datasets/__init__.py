"""Fields on disk."""
