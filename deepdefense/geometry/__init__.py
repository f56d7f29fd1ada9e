"""The mathematics of decision boundaries: norms, bounds, linearised steps, searches, distances.

`call` opens every attack and the penalty. `norms`, `arithmetic` and `bounds` are the elements.
`boundary` finds one step onto a linearised boundary; `search` (DeepFool) and `nearest_point` repeat
it. `distance` makes the distance found differentiable in the parameters.
"""
