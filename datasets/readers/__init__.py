"""Public dataset formats of the field, one reader each."""
