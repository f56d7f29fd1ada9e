"""The cost of hardening and attacks, as ratios measured in one process: `nox -s bench`."""
