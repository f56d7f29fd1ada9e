"""The training objectives: Deep Defense, and the defences that it is compared with."""
