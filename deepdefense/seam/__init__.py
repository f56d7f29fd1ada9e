"""The seam between algorithms and frameworks: the contract, choosing a backend, checks of input."""
