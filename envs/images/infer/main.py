"""The program of this image; what it does stands in infer_main.py."""

import sys

from infer_main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
