"""The command `python -m tcpha.be`."""

import sys

from tcpha.be.acceleration import obstacle_here
from tcpha.be.left_behind import end_connections
from tcpha.be.service import BackEnd
from tcpha.config import load_back_end
from tcpha.program import main

if __name__ == "__main__":
    sys.exit(main("be", "/etc/tcpha/tcphabe.conf", load_back_end, BackEnd, obstacle_here, end_left=end_connections))
