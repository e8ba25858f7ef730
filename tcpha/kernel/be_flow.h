/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whose a four-tuple is, and what becomes of it: begins, ends, is told and forgotten.
 *
 * Two programs at once, or a program and the agent, may want the same four-tuple. Whoever changes whose it is holds its
 * entry meanwhile; nobody waits: who finds it held leaves the packet to the agent, or the agent asks again.
 */
#ifndef TCPHA_BE_FLOW_H
#define TCPHA_BE_FLOW_H

#include "be_packet.h"

#define SEEN_SHIFT 30 /* `seen` of a flow counts 2^30 ns, which is a little more than a second */
#define DOUBTED_SHIFT 28

/*
 * Who sees what this writes sees all that was written before, on every machine: of atomic operations only those that
 * return what was there are in order with the rest, so that is not thrown away.
 */
#define in_order(operation)                         \
	({                                          \
		__u64 there = (operation);          \
		asm volatile("" : : "r"(there));    \
	})

static __always_inline void set_flag(struct flow *flow, __u32 flag)
{
	in_order(__sync_fetch_and_or(&flow->flags, flag));
}

static __always_inline void unhold(struct flow *flow)
{
	in_order(__sync_lock_test_and_set(&flow->held, 0));
}

/* Takes an entry for itself; 0: there is none, or another one has it. */
static __always_inline struct flow *hold(const struct tuple *t)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, t);

	if (!flow || __sync_val_compare_and_swap(&flow->held, 0, 1))
		return 0;
	/* Between the two lines its place may have become another four-tuple's. */
	if (bpf_map_lookup_elem(&flows, t) == flow)
		return flow;
	unhold(flow);
	return 0;
}

/* The same, with an entry that is nobody's where there is none. */
static __always_inline struct flow *hold_or_make(const struct tuple *t)
{
	struct flow *flow = hold(t), empty = {};

	if (flow)
		return flow;
	if (bpf_map_update_elem(&flows, t, &empty, BPF_NOEXIST))
		return 0;
	return hold(t);
}

/* One that is nobody's goes. */
static __always_inline void let_go(const struct tuple *t, struct flow *flow)
{
	if (!(flow->flags & (FLOW_CARRIED | FLOW_AGENT)))
		bpf_map_delete_elem(&flows, t); /* and whoever has found it before finds it held for good */
	else
		unhold(flow);
}

static __always_inline int is_carried(const struct flow *flow)
{
	return (flow->flags & (FLOW_CARRIED | FLOW_OVER)) == FLOW_CARRIED;
}

static __always_inline int is_of(const struct flow *flow, __u32 irs, __u32 iss)
{
	return flow->of.irs == irs && flow->of.iss == iss;
}

static __always_inline int is_same(const struct flow *flow, const struct connection *other)
{
	return flow->flags && is_of(flow, other->irs, other->iss);
}

/* The next packet of its socket is to be told to a front end, maybe another one than the first; `flow` is held. */
static __always_inline void ask(struct flow *flow, __u16 sender)
{
	flow->asker = sender;
	set_flag(flow, FLOW_ASKED);
}

/*
 * Is one connection of a later generation than another one? One front end numbers what it sends; for what came of two,
 * or under two epochs, there is the period of the cookie.
 */
static __always_inline int is_later(const struct connection *one, const struct connection *other)
{
	if (one->sender == other->sender && one->epoch == other->epoch)
		return one->sequence > other->sequence;
	return (__s16)(one->period - other->period) >= 0;
}

static __always_inline int is_ipv4(const struct tuple *t)
{
	return !t->client[0] && !t->client[1] && t->client[2] == htonl(0xffff);
}

static __always_inline void write_start(struct field *to, const struct tuple *t, const struct flow *flow, __u16 octets)
{
	to->type = htons(FIELD_FLOW);
	to->octets = htons(octets);
	to->irs = htonl(flow->of.irs);
	to->iss = htonl(flow->of.iss);
	to->client_port = t->client_port;
	to->vip_port = t->vip_port;
}

static __always_inline void write_short(struct field *to, const struct tuple *t, const struct flow *flow)
{
	write_start(to, t, flow, IDENTITY_OCTETS_IPV4);
	to->addresses[0] = t->client[3];
	to->addresses[1] = t->virtual[3];
}

static __always_inline void write_long(struct long_field *to, const struct tuple *t, const struct flow *flow)
{
	write_start(&to->start, t, flow, IDENTITY_OCTETS_IPV6);
	memcpy(to->start.addresses, t, 8);
	memcpy(to->addresses, (const char *)t + 8, 24);
}

/* The agent reads the journals some time after it was woken; once is enough. */
static __always_inline void ring(struct progresses *progresses)
{
	__u64 nothing = 0;

	if (progresses->is_rung || __sync_lock_test_and_set(&progresses->is_rung, 1))
		return;
	if (bpf_ringbuf_output(&events, &nothing, sizeof(nothing), 0))
		counted(EVENTS_LOST, 0);
}

/* A connection that was closed long ago is not known any more: its place in the journal is needed. */
static __always_inline void forget(const struct tuple *t, const struct field *of)
{
	struct flow *flow;

	if (!of->type)
		return;
	flow = hold(t);
	if (!flow)
		return;
	if (is_of(flow, ntohl(of->irs), ntohl(of->iss)) && flow->flags & FLOW_OVER)
		bpf_map_delete_elem(&flows, t);
	else
		unhold(flow);
}

static __always_inline void tell_closed(const struct tuple *t, const struct flow *flow, struct progresses *progresses)
{
	struct tuple old = {};
	__u32 place;

	if (is_ipv4(t)) {
		struct field *field;

		place = __sync_fetch_and_add(&progresses->closed_ipv4.taken, 1) & (CLOSED_IPV4 - 1);
		field = bpf_map_lookup_elem(&closed_ipv4, &place);
		if (!field)
			return;
		set_mapped(old.client, field->addresses[0]);
		set_mapped(old.virtual, field->addresses[1]);
		old.client_port = field->client_port;
		old.vip_port = field->vip_port;
		forget(&old, field);
		write_short(field, t, flow);
		in_order(__sync_fetch_and_add(&progresses->closed_ipv4.written, 1));
	} else {
		struct long_field *field;

		place = __sync_fetch_and_add(&progresses->closed_ipv6.taken, 1) & (CLOSED_IPV6 - 1);
		field = bpf_map_lookup_elem(&closed_ipv6, &place);
		if (!field)
			return;
		memcpy(&old, field->start.addresses, 8);
		memcpy((char *)&old + 8, field->addresses, 24);
		old.client_port = field->start.client_port;
		old.vip_port = field->start.vip_port;
		forget(&old, &field->start);
		write_long(field, t, flow);
		in_order(__sync_fetch_and_add(&progresses->closed_ipv6.written, 1));
	}
	ring(progresses);
}

static __always_inline void tell_held(const struct tuple *t, struct flow *flow, struct progresses *progresses)
{
	__u32 place;
	__u64 *sender;

	if (is_ipv4(t)) {
		struct field *field;

		place = __sync_fetch_and_add(&progresses->held_ipv4.taken, 1);
		flow->told_at = place;
		place &= HELD_IPV4 - 1;
		field = bpf_map_lookup_elem(&held_ipv4, &place);
		sender = bpf_map_lookup_elem(&asked_ipv4, &place);
		if (!field || !sender)
			return;
		write_short(field, t, flow);
		*sender = flow->of.sender;
		in_order(__sync_fetch_and_add(&progresses->held_ipv4.written, 1));
	} else {
		struct long_field *field;

		place = __sync_fetch_and_add(&progresses->held_ipv6.taken, 1);
		flow->told_at = place;
		place &= HELD_IPV6 - 1;
		field = bpf_map_lookup_elem(&held_ipv6, &place);
		sender = bpf_map_lookup_elem(&asked_ipv6, &place);
		if (!field || !sender)
			return;
		write_long(field, t, flow);
		*sender = flow->of.sender;
		in_order(__sync_fetch_and_add(&progresses->held_ipv6.written, 1));
	}
	set_flag(flow, FLOW_TOLD);
	ring(progresses);
}

/* Is an entry of a journal still what was written at a place, and has the agent not read it? */
static __always_inline int is_unread(const struct progress *of, __u32 place, __u32 entries)
{
	return (__s32)(place - (__u32)of->read) >= 0 && (__u32)of->taken - place <= entries;
}

/* The agent may be copying it: it gets the type or none, and the rest as it was. */
static __always_inline void strike_out(struct field *field)
{
	if (field)
		*(volatile __be16 *)&field->type = 0;
}

/* What is over before the agent has told that it is held is told to be closed, and no more. */
static __always_inline void untell_held(const struct tuple *t, const struct flow *flow, struct progresses *progresses)
{
	__u32 place = flow->told_at;

	if (!(flow->flags & FLOW_TOLD))
		return;
	if (is_ipv4(t)) {
		if (!is_unread(&progresses->held_ipv4, place, HELD_IPV4))
			return;
		place &= HELD_IPV4 - 1;
		strike_out(bpf_map_lookup_elem(&held_ipv4, &place));
	} else {
		if (!is_unread(&progresses->held_ipv6, place, HELD_IPV6))
			return;
		place &= HELD_IPV6 - 1;
		strike_out(bpf_map_lookup_elem(&held_ipv6, &place));
	}
}

static __always_inline void count_end(void)
{
	__u32 zero = 0;
	struct progresses *progresses = bpf_map_lookup_elem(&progress, &zero);

	counted(ENDED, 0);
	if (progresses)
		in_order(__sync_fetch_and_add(&progresses->ended, 1));
}

/* The four-tuple is nobody's from now on, and of who had it nothing is told; `flow` is held. */
static __always_inline void clear(struct flow *flow)
{
	__u32 zero = 0, was = __sync_lock_test_and_set(&flow->flags, 0);
	struct progresses *progresses;

	if ((was & (FLOW_CARRIED | FLOW_OVER)) != FLOW_CARRIED)
		return;
	progresses = bpf_map_lookup_elem(&progress, &zero);
	if (was & FLOW_STARTED)
		count_end();
	else if (progresses)
		in_order(__sync_fetch_and_add(&progresses->unmade, 1));
}

/* From now on the four-tuple is this connection's; `flow` is held, and nobody's before. */
static __always_inline void begin(struct flow *flow, const struct connection *of, __u32 flags)
{
	in_order(__sync_lock_test_and_set(&flow->flags, 0));
	flow->of = *of;
	flow->cookie = 0;
	flow->rcv_nxt = of->irs + 1;
	flow->snd_nxt = of->iss + 1;
	flow->fin_arriving = 0;
	flow->fin_leaving = 0;
	flow->asker = 0;
	flow->doubted = 0;
	/* Not the coarse clock: be_order may not look at that. */
	flow->seen = bpf_ktime_get_ns() >> SEEN_SHIFT;
	in_order(__sync_lock_test_and_set(&flow->flags, flags));
}

/* Its socket is gone, or in TIME-WAIT: whoever sees it first tells it; was it this one? */
static __always_inline int end(const struct tuple *t, struct flow *flow)
{
	__u32 zero = 0, was = __sync_fetch_and_or(&flow->flags, FLOW_OVER);
	struct progresses *progresses = bpf_map_lookup_elem(&progress, &zero);

	/* Or the agent has just ended it silently. */
	if (was & FLOW_OVER || !(was & FLOW_CARRIED) || !progresses)
		return 0;
	count_end();
	untell_held(t, flow, progresses);
	tell_closed(t, flow, progresses);
	return 1;
}

/* There is a socket, and it may have read the request. */
static __always_inline void start(struct scratch *s, struct flow *flow)
{
	__u32 zero = 0, slot = flow->of.period & (GENERATIONS - 1), state = RAN, was;
	struct progresses *progresses = bpf_map_lookup_elem(&progress, &zero);
	void *generation;

	if (flow->flags & FLOW_STARTED || !progresses)
		return;
	generation = bpf_map_lookup_elem(&ran, &slot);
	s->name.irs = flow->of.irs;
	s->name.iss = flow->of.iss & HASH_BITS;
	if (generation)
		bpf_map_update_elem(generation, &s->name, &state, BPF_EXIST);
	was = __sync_fetch_and_or(&flow->flags, FLOW_STARTED);
	/* Or the agent has just found that there is none. */
	if (was & FLOW_STARTED || !(was & FLOW_CARRIED))
		return;
	counted(STARTED, 0);
	in_order(__sync_fetch_and_add(&progresses->started, 1));
	if (was & FLOW_CONFIRM)
		tell_held(&s->name.tuple, flow, progresses);
}

/*
 * To a front end that has asked once more: how far the server has acknowledged. No front end: the agent shall look.
 * Returns 0 if there is room for it.
 */
static __always_inline long answer(struct scratch *s, const struct flow *flow, __u32 sender, __u32 rcv_nxt)
{
	struct answer *answer = &s->answer;
	long is_lost;

	answer->sender = sender;
	answer->rcv_nxt = rcv_nxt;
	if (is_ipv4(&s->name.tuple)) {
		write_short(&answer->field.start, &s->name.tuple, flow);
		is_lost = bpf_ringbuf_output(&events, answer, 8 + sizeof(struct field), 0);
	} else {
		write_long(&answer->field, &s->name.tuple, flow);
		is_lost = bpf_ringbuf_output(&events, answer, sizeof(*answer), 0);
	}
	if (is_lost)
		counted(EVENTS_LOST, 0);
	return is_lost;
}

/* Both sides have closed, and know it of each other. */
static __always_inline void end_if_closed(struct scratch *s, struct flow *flow)
{
	if ((flow->flags & FLOW_CLOSED) == FLOW_CLOSED)
		end(&s->name.tuple, flow);
}

#endif
