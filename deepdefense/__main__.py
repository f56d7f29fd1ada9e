"""`python -m deepdefense`, as the command `deepdefense`."""

from deepdefense.app.cli import main

main()
