"""The objectives of training: Deep Defense, and the defences it is compared with."""
