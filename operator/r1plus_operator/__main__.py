"""`python -m r1plus_operator`."""

from r1plus_operator.main import main

main()
