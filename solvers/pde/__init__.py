"""Reference solvers: one short file per equation."""
