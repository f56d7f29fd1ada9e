"""`python -m deepdefense`, as the command `deepdefense`."""

from deepdefense.cli import main

main()
