"""The engine room of the Gram family.

residual      what a residual function may return
kernels, layer_kernels, recorder, rows    factors of the Jacobian per sample, from one backward pass
pieces, factors, squares, jacobian    the Jacobian from its factors
vjp, passes, recomputed    rows and columns by passes, and the Jacobian that is not held
engines       ways to get it
filters       what a step makes of each singular value
eigen         eigenvectors that are only multiplied with vectors
systems       factorisations on the smaller side
path          where a step leads, for each size
control       how far to go
problem       all that a control can ask
optimizer     all of it put together
"""
