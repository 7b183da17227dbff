"""``python -m pplr_audit``: the same as ``pplr-audit``."""

from pplr_audit.cli.main import main

main()
