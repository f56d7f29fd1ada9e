"""`dd.harden`, `dd.evaluate`, and the jobs of the commands."""
