/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both sides have in common about packets: names of addresses and flags, how sums are folded, what is counted. */
#ifndef TCPHA_PACKET_H
#define TCPHA_PACKET_H

#include "bpf.h"

#define KEYS 2
#define MAX_BLOCKS 24 /* of 64 octets that are hashed or summed: 1536 octets, so whatever an Ethernet carries */
#define MAX_WINDOW_SCALE 14
#define PACKET_HOST 0
#define TCP_OCTETS 20
#define TIMESTAMPS_OCTETS 12
#define ALIGNED_TIMESTAMPS 0x0101080a
#define FRAGMENT_BITS 0x3fff /* more fragments, and the offset of this one */
#define HASH_BITS 0xffffff00 /* of a cookie; the others say what was agreed */

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

/* Addresses in network order, IPv4 ones in their IPv6 form; so one key serves both families. */
struct endpoint {
	__u32 address[4];
	__be16 port;
	__u16 zero;
};

struct tuple {
	__u32 client[4];
	__u32 virtual[4];
	__be16 client_port;
	__be16 vip_port;
};

/* Where the segments of a connection go to. */
static __always_inline void set_virtual(struct endpoint *to, const struct tuple *t)
{
	memcpy(to->address, t->virtual, 16);
	to->port = t->vip_port;
	to->zero = 0;
}

static __always_inline void set_mapped(__u32 *to, __be32 address)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = htonl(0xffff);
	to[3] = address;
}

/* The 16 bits that a one's complement sum of words comes to. */
static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline int counted_in(void *counters, __u32 what, int verdict)
{
	__u64 *count = bpf_map_lookup_elem(counters, &what);

	if (count)
		++*count;
	return verdict;
}

/* One more in the map `counts` of either side, one set for each CPU; the verdict passes through. */
#define counted(what, verdict) counted_in(&counts, what, verdict)

/* Left to the process, as it is. Not by TC_ACT_OK: programs of others at this interface see the packet, too. */
#define UP(what) return counted(what, TC_ACT_UNSPEC)

#endif
