/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ring by which packets go up to the process: which go that way, and whether anybody reads it. */
#ifndef TCPHA_FE_RAISE_H
#define TCPHA_FE_RAISE_H

#include "fe_packet.h"

/* Does a process read the ring? */
static __always_inline int is_read(void)
{
	__u32 zero = 0;
	struct times *found = bpf_map_lookup_elem(&times, &zero);

	return found && bpf_ktime_get_boot_ns() < found->read_until_boot_ns;
}

/* The sum of the TCP segment that lies in `s->raised`, zeros behind it. */
static __noinline __u64 raised_sum(struct scratch *s, __u32 at, __u32 octets)
{
	__u64 sum = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RAISED_OCTETS / SUM_OCTETS; i++) {
		__u32 piece = octets < SUM_OCTETS ? octets + 3 & ~3 : SUM_OCTETS, from = (at & 63) + i * SUM_OCTETS;

		if (!piece || piece > SUM_OCTETS)
			break;
		sum += (__u32)bpf_csum_diff(0, 0, (__u32 *)(s->raised.packet + from), piece, 0);
		octets -= octets < piece ? octets : piece;
	}
	return sum;
}

/*
 * The packet goes to the process by the ring. What does not fit, several packets in one, a wrong checksum, and all
 * while the ring is full or not read: as it is, by netfilter's queue.
 */
static __noinline int raise(struct __sk_buff *skb, struct scratch *s, const struct segment *g)
{
	__u32 octets = g->end - ETH_HLEN, at = g->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct raised *r = &s->raised;
	struct tcphdr *tcp = (void *)(r->packet + at);
	__u64 pseudo = pseudo_sum(&s->block.tuple, octets - at), sum;

	if (skb->gso_size || octets < sizeof(struct iphdr) + TCP_OCTETS || octets > RAISED_OCTETS || !is_read() ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, octets))
		return TC_ACT_UNSPEC;
	r->packet[octets] = 0;
	r->packet[octets + 1] = 0;
	r->packet[octets + 2] = 0;
	sum = pseudo + raised_sum(s, at, octets - at);
	if (folded(sum) != 0xffff) {
		if (!is_to_be_completed(skb, g->at + CHECK_OFFSET, tcp->check, pseudo))
			return TC_ACT_UNSPEC;
		tcp->check = ~folded(sum + (__u16)~tcp->check);
	}
	return bpf_ringbuf_output(&raised, r, RAISED_HEADER + octets, 0) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

#define RAISE(what) return counted(what, raise(skb, s, g))

#endif
