"""A battery of small problems: how well does `dd.harden` do with no setting given?

For each pair of data and network, the battery trains a network, hardens it by
`dd.harden(model, train, test)`, fine-tunes it by a grid of rival methods with the same number of
optimizer steps, and judges all networks alike. `python -m benchmarks.battery` runs it.

The battery favours the rivals: their radii follow from the distances of the given network on test
examples, they know the bounds of the data, and the best of them is chosen by the test results.
"""
