"""Parts that several attacks share.

- `problem`: `open_problem`, with which attacks begin, and `Perturbation`, which they return.
- `losses`: the losses that attacks maximise, as functions of the logits.
- `balls`: projections onto the ball of radius eps, and random starting points in the ball.
- `minimum_norm_walk`: the loop of the minimum-norm attacks `ddn` and `fmn`.
- `refinement`: the last stage of minimum-norm attacks, which moves a point nearer to its example.
"""
