"""The mathematics of decision boundaries, which attacks and the Deep Defense penalty share.

- `open_call`: argument checks, inference mode and flattening, with which attacks and penalty begin.
- `arithmetic`, `norms`, `bounds`: safe division, p-norms, and the range of perturbed examples.
- `boundary`: the shortest step onto the nearest of several linearised decision boundaries.
- `search`: DeepFool's search for a boundary point.
- `nearest_point`: a search for the boundary point nearest to the example.
- `distance`: the distance that a search found, differentiable in the model's parameters.
- `rho`: the size of a perturbation relative to its example.
"""
