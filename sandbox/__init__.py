"""A small internet on loopback: a DNS server, mailbox providers and an inbox to look into.

Mail that is sent here is kept and shown, and never leaves the machine. Recipients choose
how the servers misbehave (`faults`), names choose how the DNS does (`zone`).

It speaks the protocols of the real ones and knows nothing of the programs that use it.
"""
