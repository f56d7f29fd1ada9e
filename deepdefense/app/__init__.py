"""The part of the package that reads and writes files, prints to a terminal and makes pages."""
