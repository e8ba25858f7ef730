"""The command `python -m tcpha.fe`."""

import sys

from tcpha.config import load_front_end
from tcpha.fe.acceleration import obstacle_here
from tcpha.fe.service import FrontEnd
from tcpha.program import main

if __name__ == "__main__":
    sys.exit(main("fe", "/etc/tcpha/tcphafe.conf", load_front_end, FrontEnd, obstacle_here))
