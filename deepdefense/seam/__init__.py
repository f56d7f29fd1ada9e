"""The seam between algorithms and frameworks: contract, choice of backend, checks, settings."""
