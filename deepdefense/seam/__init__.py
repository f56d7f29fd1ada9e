"""Everything between the algorithms and the frameworks that run them.

This package defines the contract that a backend implements, chooses the backend for a function
call, checks arguments, and declares settings.
"""
