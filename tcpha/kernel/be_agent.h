/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the agent has done with one connection, in one step that nothing can come between. */
#ifndef TCPHA_BE_AGENT_H
#define TCPHA_BE_AGENT_H

#include "be_flow.h"

/* The agent wants to run a connection: not while another one of ours lives there. A later one's note stays. */
static __always_inline int take(const struct order *order, struct flow *flow)
{
	int same = flow->flags && is_of(flow, order->irs, order->iss);

	if (is_adopted(flow) && !(same && !(flow->flags & FLOW_STARTED)))
		return 0;
	if (flow->flags & FLOW_AGENT && !same &&
	    !is_later(flow, order->sender, order->epoch, order->sequence, order->period))
		return 1;
	clear(flow);
	barrier();
	flow->irs = order->irs;
	flow->iss = order->iss;
	flow->epoch = order->epoch;
	flow->sequence = order->sequence;
	flow->period = order->period;
	flow->sender = order->sender;
	flow->seen = bpf_ktime_get_ns() >> 30;
	barrier();
	flow->flags = FLOW_AGENT;
	return 1;
}

/* The rest is done only if the four-tuple is still this connection's. */
static __always_inline int act(const struct tuple *t, const struct order *order, struct flow *flow)
{
	if (order->act == ACT_TAKE)
		return take(order, flow);
	if (!is_of(flow, order->irs, order->iss))
		return 0;
	switch (order->act) {
	case ACT_RELEASE:
		if (!(flow->flags & FLOW_AGENT))
			return 0;
		clear(flow); /* with which it goes */
		return 1;
	case ACT_FORGET:
		if (flow->flags & FLOW_AGENT || (is_adopted(flow) && flow->flags & FLOW_STARTED))
			return 0;
		clear(flow);
		return 1;
	case ACT_ASK:
		if (!is_adopted(flow))
			return 0;
		ask(flow, order->sender ? order->sender : flow->sender);
		return 1;
	case ACT_SILENCE:
		if (!is_adopted(flow))
			return 0;
		__sync_fetch_and_or(&flow->flags, FLOW_SILENT);
		return 1;
	case ACT_END:
		if (!is_adopted(flow))
			return 0;
		if (flow->flags & FLOW_STARTED && !(flow->flags & FLOW_SILENT))
			return end(t, flow);
		clear(flow);
		return 1;
	}
	return 0;
}

static __always_inline int obey(struct order *order)
{
	struct tuple t = order->tuple;
	struct flow *flow = order->act == ACT_TAKE ? hold_or_make(&t) : hold(&t);

	if (!flow)
		return 0;
	order->is_done = act(&t, order, flow);
	let_go(&t, flow);
	return 0;
}

#endif
