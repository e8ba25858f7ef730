/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front end's program: what of its work needs no decision (docs/kernel.md), and in which order it is told apart.
 *
 *   a SYN                         the SYN-ACK of tcpha.fe.handshake, with the cookie of tcpha.proto.cookie
 *   a handshake's bare ACK        taken out
 *   a packet of a flow in `flows` to its back end, as it is or in IP in IP (tcpha.proto.tunnel)
 *
 * What it does not want the dispatcher gets: segments by the ring `raised`, which costs a fraction of what a queue of
 * netfilter's does; all else as it is, by that queue. The program decides nothing that the dispatcher does not decide
 * alike. It enters no flow and removes none: the dispatcher's table is the authority. Where a new connection may have
 * begun on the ports of a flow it passes everything up until that has decided.
 */
#include "fe_forward.h"
#include "fe_handshake.h"
#include "fe_raise.h"

/*
 * A segment is strange, or nobody can say what it is. Where no process lives to decide, a known flow goes on with it: a
 * stranger could stop it for good.
 */
static __always_inline int goes_on(const struct flow *flow)
{
	return flow && !is_read();
}

/* What looks like first octets: with a cookie the process need not look for one, and knows that they are. */
static __always_inline void look_for_cookie(struct __sk_buff *skb, struct scratch *s, struct segment *g)
{
	if (!is_bare(g) && (g->flags & (ACK | RST)) == ACK && is_read())
		cookie_of(skb, s, g);
}

SEC("tc/ingress")
int fe_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct segment *g;
	struct flow *flow;

	if (!s)
		return TC_ACT_UNSPEC;
	g = &s->segment;
	if (!read_segment(skb, &s->block.tuple, g))
		return TC_ACT_UNSPEC;
	flow = bpf_map_lookup_elem(&flows, &s->block.tuple);
	if ((!flow || g->flags & SYN) && !is_target(s))
		return TC_ACT_UNSPEC;
	if (g->flags & SYN)
		return on_syn(skb, s, g, flow);
	s->raised.has_cookie = 0;
	if (flow && flow->doubted_until && is_doubted(flow, g->ack)) {
		if (is_noted(flow, g->seq))
			look_for_cookie(skb, s, g);
		RAISE(UP_REUSED);
	}
	if (may_begin(flow, g)) {
		switch (cookie_of(skb, s, g)) {
		case COOKIE_VALID:
			if (flow && resembles(flow, g))
				break;
			if (is_bare(g)) /* the end of a handshake: nothing comes of it */
				return counted(HANDSHAKES, TC_ACT_SHOT);
			doubt(flow);
			RAISE(UP_REUSED);
		case COOKIE_UNREAD:
			if (goes_on(flow))
				break;
			RAISE(UP_FORM);
		case COOKIE_OFF:
			if (goes_on(flow))
				break;
			RAISE(UP_OFF);
		default:
			if (flow && is_strange(flow, g->ack) && !goes_on(flow)) {
				doubt(flow);
				RAISE(UP_REUSED);
			}
		}
	}
	if (!flow) {
		look_for_cookie(skb, s, g);
		RAISE(UP_UNKNOWN);
	}
	if (flow->state == FLOW_HELD || (flow->state == FLOW_HANDED && has_octets(g)))
		RAISE(UP_HELD);
	if (flow->state == FLOW_HANDED && g->flags & ACK && g->ack != flow->last_ack && is_near(flow, g) &&
	    !is_whole(skb, s, g))
		UP(UP_CHECKSUM);
	return forward(skb, s, g, flow);
}

SEC("license") const char licence[] = "GPL";
