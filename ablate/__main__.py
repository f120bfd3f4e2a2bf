"""`python -m ablate`, for where the console script is not on the path."""

from ablate.cli.main import main

main()
