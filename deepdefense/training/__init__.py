"""Framework-neutral training: recipe, epochs, the guarded loop, hardening and its report."""
