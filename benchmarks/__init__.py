"""What hardening and attacks cost, as ratios inside one process: `nox -s bench`."""
