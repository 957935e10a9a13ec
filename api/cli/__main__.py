"""``python -m api.cli``, as the server runs reports."""

from api.cli.main import main

main()
