/* SPDX-License-Identifier: GPL-2.0-or-later */
/* On to the back end: to a neighbour as it is, or in IP in IP (tcpha.proto.tunnel). */
#ifndef TCPHA_FE_FORWARD_H
#define TCPHA_FE_FORWARD_H

#include "fe_flow.h"
#include "fe_raise.h"

#define MAX_IPV4_OCTETS 65535

/* Puts the packet into another one, and lets the host's routes and neighbours say where that goes. */
static __always_inline int send_through_tunnel(struct __sk_buff *skb, struct scratch *s, const struct segment *g,
					       struct way *way)
{
	__u32 is_outer_ipv6 = way->kind == WAY_TUNNEL_IPV6, gso = skb->gso_size, packets = skb->gso_segs;
	__u32 overhead = is_outer_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), octets = g->end - ETH_HLEN;
	__u32 protocol = g->is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	/* Of several packets that arrived as one, each must fit; and one that holds them all must be possible. */
	if (gso ? g->at - ETH_HLEN + g->header + gso > way->carried_octets || octets + overhead > MAX_IPV4_OCTETS
		: octets > way->carried_octets)
		UP(UP_TOO_BIG);
	if (skb->len != g->end && bpf_skb_change_tail(skb, g->end, 0))
		UP(UP_KERNEL);
	flags |= is_outer_ipv6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, flags))
		UP(UP_KERNEL);
	if (is_outer_ipv6) {
		s->outer_protocol = htons(ETH_P_IPV6);
		write_ipv6(s->outer, octets, protocol, way->source, way->destination);
	} else {
		/* It may be fragmented, so packets on this way are numbered. */
		__u32 ident = __sync_fetch_and_add(&way->ident, packets ? packets : 1) & 0xffff;

		s->outer_protocol = htons(ETH_P_IP);
		write_ipv4(s->outer, octets, ident << 16, protocol, way->source[0], way->destination[0]);
	}
	if (bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(s->outer_protocol), &s->outer_protocol,
				sizeof(s->outer_protocol) + overhead, BPF_F_INVALIDATE_HASH))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return counted(TUNNELLED, bpf_redirect_neigh(skb->ifindex, 0, 0, 0));
}

/* A segment of a flow that a back end has: it goes there. */
static __always_inline int forward(struct __sk_buff *skb, struct scratch *s, const struct segment *g, struct flow *flow)
{
	__u32 number;
	struct way *way;

	flow->last_seen_ns = bpf_ktime_get_coarse_ns();
	if (g->flags & ACK && is_near(flow, g))
		flow->last_ack = g->ack;
	number = flow->way;
	way = bpf_map_lookup_elem(&ways, &number);
	if (!way)
		RAISE(UP_WAY);
	switch (way->kind) {
	case WAY_NEIGHBOUR:
		if (bpf_skb_store_bytes(skb, 0, way->macs, sizeof(way->macs), 0))
			UP(UP_KERNEL);
		return counted(FORWARDED, bpf_redirect(skb->ifindex, 0));
	case WAY_TUNNEL_IPV4:
	case WAY_TUNNEL_IPV6:
		return send_through_tunnel(skb, s, g, way);
	default:
		RAISE(UP_WAY);
	}
}

#endif
