"""What several attacks share: the problem, losses, balls, the minimum-norm walk, refinement."""
