"""The sentences of docs/wire.md; `wiredoc` puts the tables between them. Knows no code."""

TEXT = """\
# The handoff channel on the wire

Written by `python -m tcpha.proto.wiredoc`; a test compares its tables with the code. Do not edit.

FE is a front end, BE a back end. Numbers are in network byte order, lengths and offsets in octets.

## Datagram

One message is one UDP datagram and is never fragmented: request octets that do not fit follow as TCP segments. The port
is 666 unless the configuration says otherwise. A datagram consists of the fixed header, two addresses, TLVs and, in a
HANDOFF, request octets from irs + 1 on (as many as fit, or none). Every field is naturally aligned. What a message does
not use is sent as 0 and not read.

{fixed}
Behind it with IPv4; the header has 68 octets, and TLVs:

{ipv4}
Behind it with IPv6; the header has 92 octets, and TLVs:

{ipv6}
### Flags

{flags}
### Messages

Flow: whether irs, iss, ports and addresses of the header name a flow; where not, they are 0 and the flag IPV6 is clear.
TLVs: `?` may be missing, `*` stands any number of times or not at all, every other one stands once.

{messages}
Only HANDOFF uses the other flags, scales, mss, window, period, tsval_sent, tsval_client and octets behind the header.

### TLVs

From the end of the addresses to the end of the header. Each has its type (2 octets), the length of its value without
padding (2 octets), the value, and zeros up to the next multiple of 4.

{tlvs}
Their values, offsets from the first octet of the value:

{values}
A TLV that the table of messages does not give to the message is skipped, whatever its type. Where one stands twice that
should stand once, the first is read. The whole message is malformed, counted and dropped, if the header's length does
not fit, a value runs over the end of the header, a TLV that is read has a length that is not listed or a number that is
not known, one is missing, a HANDOFF with WINDOW_SCALE has a window scale of 15, or CAPABILITIES one over 15.

A header has at most 1020 octets. So a message has at most {flows} flows of IPv6, or 39 of IPv4, and a STATUS at most
{servers} servers of either.

### Numbers

- REASON: {reasons}
- STATE: {node_states}
- SERVER: {server_states}

## Keys and tag

The secret is a file with one or two keys of 32 octets, each with a number, 0 to 255. The first one makes tags and
cookies, both verify them. To rotate: add the new key as the second on all nodes, then make it the first, then drop the
old one. A sub-key is the keyed hash (RFC 7693) of the purpose:

    sub-key = BLAKE2s(key = secret, message = purpose), 32 octets; the purpose is `tcpha handoff` or `tcpha cookie`
    tag     = BLAKE2s(key = sub-key of `tcpha handoff`, message = octet 16 to the end of the datagram), 16 octets

A receiver checks in this order: at least 68 octets, magic, version, key number, tag, header length, type, TLVs.

## Replays

A receiver keeps an epoch for each sender and a table `seen` of 4096 sequence numbers. It accepts a message only if its
epoch is the current one and its sequence is greater than `seen[sequence mod 4096]`; the sequence is then stored there.
So nothing counts twice, and messages may overtake one another by up to 4096. A repeat is sealed anew, with a sequence
of its own. What has a wrong tag, epoch or sequence, or comes from an unknown peer, is counted and never answered.

Only STATUS is different, since by STATUS epochs are learned. It carries the nonce of the process that sends it, and the
epoch under which that process accepts messages of the receiver (EPOCH). Epochs are numbered upwards from a random
start, and one that was current once is never used again.

- A receiver offers an epoch to one process, which its nonce names; to another process it offers another one.
- The first STATUS that bears an offered epoch, and comes from the process it was offered to, makes that epoch the
  current one: `seen` is emptied, and whatever was sealed under earlier epochs is void.
- STATUS under any other epoch, or of another process than the one the epoch belongs to, teaches nothing. It is answered
  by a STATUS that bears the epoch it offered; at most once per peer in 100 ms, unless it bears an offered epoch, which
  no old message can.
- STATUS that a later one has overtaken teaches nothing either.
- A process whose sequence passed 2^31 is offered another epoch, under which its sequence begins low again.

A process that starts knows no epoch, so it bears 0:

| step | from, to | epoch in the header | EPOCH | receiver |
| --- | --- | --- | --- | --- |
| 1 | A to B | 0 | a | does not believe it, answers |
| 2 | B to A | a | b | believes it: messages to B bear b from now on |
| 3 | A to B | b | a | believes it: messages to A bear a from now on |

Whoever sends an old STATUS again gets one answer in 100 ms, and nobody learns anything from it.

A sender id belongs to one node. STATUS with the id of the receiver, or of another peer that is heard, is refused; any
other message is accepted only with the id that the peer's STATUS bore.

## Repeats and timing

- With CONFIRM, a HANDOFF is repeated until it is answered: by an ADOPTED at once if it has ACKNOWLEDGED, or comes
  again when the connection lives; otherwise, within 25 ms, by a FLOWS that names the connection among others as held,
  or by the CLOSED of one that is over already. Without CONFIRM there is no answer and no repeat, since the client's own
  retransmission repairs a loss; that is allowed only if the FE acknowledged no request octet.
- ACKNOWLEDGED: the client will not send these octets again, so the FE repeats them until RCV_NXT covers them.
- A HANDOFF of a live flow rebuilds nothing: its octets go to the server's TCP again, which discards what it has.
- A HANDOFF of a finished flow is answered with CLOSED; nothing reaches a server.
- A HANDOFF with another irs or iss on the same four-tuple replaces the flow if its period is not lower; else it is
  refused as an older generation.
- A BE sends REFUSED only when it has taken back what it made. The FE then turns to the next one.
- When the last repeat stays without an answer, the FE sends CLOSED to the BE and forwards nothing more to it. The
  request may have reached a server, so it goes to another BE only if its method is idempotent (RFC 9110, 9.2.2).
- A STATUS that cannot name all servers leaves out some that answer.

{times}
## Cookie

The FE's initial sequence number is a SYN cookie (RFC 4987). Hashed is one block of 64 octets:

{cookie}
    high, low = BLAKE2s(key = sub-key of `tcpha cookie`, message = block), 8 octets: the first 4, the last 4
    iss       = high XOR agreement: bits 31 to 8 are hash, bits 7 to 0 are the agreement, hidden by hash
    TSval     = low, but 1 instead of 0: sent with the SYN-ACK if timestamps are agreed on; the request must echo it

| bits of the agreement | meaning |
| --- | --- |
| 7 to 5 | MSS class ({classes}): the client's MSS, rounded down; less than the first counts as the first |
| 4 to 1 | the client's window scale, 0 to 14; 15: windows are not scaled |
| 0 | SACK |

Cookies of the current period, the one before and the one after are accepted, under each key of the secret.

The TSval protects connections that carry timestamps. A forger leaves them out and is right with one guess of iss in
2^24 / (3 periods * number of keys); the FE counts first segments without timestamps as `short_cookies`.

{cookie_example}
## Example

A HANDOFF with CONFIRM. The key has number 1 and the octets 00 to 1f. The FE has acknowledged four request octets.

{example}
The whole datagram:

{dump}
"""
