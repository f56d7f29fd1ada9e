"""What several attacks share.

- `problem`: the opening and the result of every attack, and whether a point fools the model.
- `losses`: what attacks maximise, as functions of the logits.
- `balls`: the ball of radius eps, projections onto it, and random starts in it.
- `walk`: the loop of minimum-norm attacks that move step by step (`ddn`, `fmn`).
- `refinement`: the last stage of minimum-norm attacks, which brings a point that fools nearer.
"""
