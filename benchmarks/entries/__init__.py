"""Every `Comparison` and `Study` at the top of a file here is found by the runner."""
