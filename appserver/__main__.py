"""`python -m appserver` is the command `cherokee-app`."""

from __future__ import annotations

import sys

from appserver.cli import main

sys.exit(main())
