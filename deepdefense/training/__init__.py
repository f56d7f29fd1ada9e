"""Train and harden networks in any framework, undo epochs that fail, and report the results."""
