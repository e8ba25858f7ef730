"""TCP handoff in user space, after TCPHA-0.3 (Li Wang, 2004).

A front end finishes the client's TCP handshake, reads the request, chooses a back end by rules and hands the connection
off; the back end rebuilds it beside an unmodified server, which answers the client directly.
"""

__version__ = "0.4.0"
