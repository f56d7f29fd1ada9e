"""Programs that measure the cost of hardening and the speed and strength of attacks.

The session `nox -s bench` installs what they need and runs `python -m benchmarks`.
"""
