"""`python -m haversack` is the `haversack` command."""

from haversack.cli import main

main()
