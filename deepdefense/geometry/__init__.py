"""The mathematics of decision boundaries: norms, bounds, linearised steps, searches, distances."""
