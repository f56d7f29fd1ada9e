"""Training in any framework: the recipe, the loop and its guard, hardening and its report."""
