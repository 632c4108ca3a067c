"""Runs one law that is a Python program: see law_program.py."""

import sys

from law_program import main

if __name__ == "__main__":
    sys.exit(main())
