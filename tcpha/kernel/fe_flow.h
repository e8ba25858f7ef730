/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is noted of a flow, and what a segment on its ports may be: its own, or a new connection's. tcpha.fe.flows asks
 * the same of the dispatcher's flows. The program enters none, and removes none.
 */
#ifndef TCPHA_FE_FLOW_H
#define TCPHA_FE_FLOW_H

#include "fe_packet.h"

#define STRANGE_OCTETS (1 << 23) /* tcpha.fe.flows */
#define PROOF_OCTETS (1 << 20)	 /* tcpha.fe.flows */
#define DOUBT 1000		 /* for so long a flow is doubted, in units of 2^20 ns: a little more than a second */

/* Does the segment begin behind a SYN that was seen? */
static __always_inline int is_noted(const struct flow *flow, __u32 seq)
{
	return (flow->notes > 0 && flow->noted[0] == seq) || (flow->notes > 1 && flow->noted[1] == seq);
}

/* Takes note of a SYN on a known flow, as Flow.note_syn does. */
static __always_inline void note_syn(struct flow *flow, __u32 irs)
{
	__u32 first = irs + 1;

	if (is_noted(flow, first))
		return;
	flow->noted[1] = flow->noted[0];
	flow->noted[0] = first;
	if (flow->notes < 2)
		flow->notes++;
}

/* Flow.is_strange: may the acknowledgement belong to another connection on the same ports? */
static __always_inline int is_strange(const struct flow *flow, __u32 ack)
{
	__u32 heard = flow->last_ack - flow->iss - 1, behind = heard < STRANGE_OCTETS ? heard : STRANGE_OCTETS;

	return ack - flow->last_ack + behind > behind + STRANGE_OCTETS;
}

/* Identity.resembles: is this the flow itself, acknowledging a little more? */
static __always_inline int resembles(const struct flow *flow, const struct segment *g)
{
	return g->seq - 1 == flow->irs && !(((g->ack - 1) ^ flow->iss) & HASH_BITS);
}

/*
 * Until the back end has confirmed, what the client acknowledges may be all that proves that it has the connection.
 * Then it counts only where the client's own octets would be, and with a right checksum, as in the core.
 */
static __always_inline int is_near(const struct flow *flow, const struct segment *g)
{
	return flow->state != FLOW_HANDED || g->seq - flow->irs - 1 <= PROOF_OCTETS;
}

/*
 * A segment may be of a new connection on the ports of a flow: until the dispatcher has decided (it writes the flow
 * anew) what follows must not overtake it. If no dispatcher lives, the flow goes on soon.
 */
static __always_inline void doubt(struct flow *flow)
{
	if (flow && !flow->doubted_until)
		flow->doubted_until = ((__u32)(bpf_ktime_get_coarse_ns() >> 20) + DOUBT) | 1;
}

/*
 * Is the dispatcher still to decide? Once it has had its time the flow goes on, from what is acknowledged now; but not
 * where that might be a proof.
 */
static __always_inline int is_doubted(struct flow *flow, __u32 ack)
{
	if ((__s32)(flow->doubted_until - (__u32)(bpf_ktime_get_coarse_ns() >> 20)) > 0)
		return 1;
	flow->doubted_until = 0;
	if (flow->state != FLOW_HANDED)
		flow->last_ack = ack;
	return 0;
}

/*
 * May the segment begin a connection? Of a flow that is not forwarded, or not known, only the bare ACK that ends a
 * handshake is looked at: of all others, first requests among them, the dispatcher may know more.
 */
static __always_inline int may_begin(const struct flow *flow, const struct segment *g)
{
	if ((g->flags & (ACK | RST)) != ACK)
		return 0;
	if (!flow)
		return is_bare(g);
	if (flow->state == FLOW_HELD) /* what it acknowledged last, the dispatcher knows */
		return is_bare(g) && is_noted(flow, g->seq);
	return is_noted(flow, g->seq) || is_strange(flow, g->ack);
}

#endif
