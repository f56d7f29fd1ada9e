"""Everything between the algorithms and the frameworks that run them.

This floor holds the contract that a backend implements, the choice of the backend for a call, the
checks of arguments, and the declaration of settings.
"""
