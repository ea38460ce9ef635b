"""`python -m jaxtrace.cli`."""

from jaxtrace.cli import main

main()
