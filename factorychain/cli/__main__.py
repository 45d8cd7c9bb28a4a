"""`python -m factorychain.cli`, for a checkout that is not installed."""

from factorychain.cli.app import main

main()
