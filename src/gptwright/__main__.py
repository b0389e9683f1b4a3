"""``python -m gptwright`` is ``gptwright``."""

import sys

from gptwright.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
