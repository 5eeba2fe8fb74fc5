"""Neural differential equations that learn to be cheap to solve."""
