"""The mathematics of decision boundaries, which attacks and the Deep Defense penalty share.

- `call`: how every attack and the penalty begin: argument checks, inference mode, flat examples.
- `arithmetic`, `norms`, `bounds`: safe division, p-norms, and the range of perturbed examples.
- `boundary`: the shortest step onto the nearest of several linearised decision boundaries.
- `search`, `nearest_point`: DeepFool's search for the boundary, and one for its nearest point.
- `distance`: the distance that a search found, differentiable in the model's parameters.
- `rho`: the size of a perturbation relative to its example.
"""
