"""The jobs behind `dd.harden`, `dd.evaluate` and the three commands."""
