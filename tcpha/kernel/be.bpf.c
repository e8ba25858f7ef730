/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back end's programs: a HANDOFF (docs/wire.md) becomes the client's first segment, in place, and with it the
 * kernel makes an ESTABLISHED socket of the front end's own sequence numbers for the unmodified server.
 *
 *   be_ingress   what enters the interface: HANDOFFs. Ends with the agent's process
 *   be_segments  what enters it: segments of connections that were adopted here
 *   be_egress    what leaves it: the first packet of an adopted connection proves the adoption
 *   be_claim     called by the agent: may a HANDOFF that came to it be run, or was it run already?
 *   be_order     called by the agent: one of its connections, or of theirs, is to begin, to end, to be asked about
 *
 * Whatever the programs do not want they leave as it is, and the agent gets it, and other programs at the interface see
 * it (TC_ACT_UNSPEC): they decide nothing that the agent does not decide alike. What they must know of it lies in maps;
 * docs/kernel.md describes them.
 */
#include "be_agent.h"
#include "be_handoff.h"
#include "be_segments.h"

SEC("tc")
int be_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct packet p = {};

	if (!s || !c || skb->pkt_type != PACKET_HOST || !read_packet(skb, s, &p) || p.protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	return on_datagram(skb, s, c, &p);
}

SEC("tc")
int be_segments(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct packet p = {};

	if (!s || !c || skb->pkt_type != PACKET_HOST || !read_packet(skb, s, &p) || p.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	return on_arriving(skb, s, c, &p);
}

SEC("tc")
int be_egress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct packet p = {};

	if (!c || !s || !c->mark || skb->mark != c->mark || !read_packet(skb, s, &p) || p.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	return on_leaving(skb, s, &p);
}

SEC("syscall")
int be_claim(struct claim *claim)
{
	__u64 *slot = find_slot(claim->table, claim->sequence), q, was;

	q = (__u64)claim->epoch << 32 | claim->sequence;
	claim->is_claimed = slot && is_fresh(slot, q, &was) && __sync_val_compare_and_swap(slot, was, q) == was;
	return 0;
}

SEC("syscall")
int be_order(struct order *order)
{
	return obey(order);
}

SEC("license") const char licence[] = "GPL";
