"""The work of each command, and the public functions `dd.harden` and `dd.evaluate`."""
