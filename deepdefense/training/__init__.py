"""Train and harden networks in any framework: recipe, training loop, guard and report."""
