"""The part of the package that reads and writes files, prints to a terminal, or renders pages."""
