"""Parts that several attacks share.

- `problem`: how every attack begins, what it returns, and whether a point fools the model.
- `losses`: the losses that attacks maximise, as functions of the logits.
- `balls`: projections onto the ball of radius eps, and random starting points in the ball.
- `walk`: the loop of the minimum-norm attacks `ddn` and `fmn`.
- `refinement`: the last stage of minimum-norm attacks, which moves a point nearer to its example.
"""
