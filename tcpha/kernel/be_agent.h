/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the agent has done with one connection, in one step that nothing can come between. */
#ifndef TCPHA_BE_AGENT_H
#define TCPHA_BE_AGENT_H

#include "be_flow.h"

/* The agent wants to run a connection: not while another one of ours lives there. A later one's note stays. */
static __always_inline int take(const struct connection *wanted, struct flow *flow)
{
	int same = is_same(flow, wanted);

	if (is_carried(flow) && !(same && !(flow->flags & FLOW_STARTED)))
		return 0;
	if (flow->flags & FLOW_AGENT && !same && !is_later(wanted, &flow->of))
		return 1;
	clear(flow);
	begin(flow, wanted, FLOW_AGENT);
	return 1;
}

/* The rest is done only if the four-tuple is still this connection's. */
static __always_inline int act(const struct tuple *t, const struct connection *wanted, __u32 what, struct flow *flow)
{
	if (what == ACT_TAKE)
		return take(wanted, flow);
	if (!is_of(flow, wanted->irs, wanted->iss))
		return 0;
	switch (what) {
	case ACT_RELEASE:
		if (!(flow->flags & FLOW_AGENT))
			return 0;
		clear(flow); /* with which it goes */
		return 1;
	case ACT_FORGET:
		if (flow->flags & FLOW_AGENT || (is_carried(flow) && flow->flags & FLOW_STARTED))
			return 0;
		clear(flow);
		return 1;
	case ACT_ASK:
		if (!is_carried(flow))
			return 0;
		ask(flow, wanted->sender ? wanted->sender : flow->of.sender);
		return 1;
	case ACT_SILENCE:
		if (!is_carried(flow))
			return 0;
		set_flag(flow, FLOW_SILENT);
		return 1;
	case ACT_END:
		if (!is_carried(flow))
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
	struct connection wanted = order->of;
	struct flow *flow = order->act == ACT_TAKE ? hold_or_make(&t) : hold(&t);

	if (!flow)
		return 0;
	order->is_done = act(&t, &wanted, order->act, flow);
	let_go(&t, flow);
	return 0;
}

#endif
