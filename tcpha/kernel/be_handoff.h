/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A HANDOFF that came: who runs it. docs/kernel.md has the table; tcpha/be/accelerated.py the agent's part of it.
 *
 * What goes to the agent on its behalf leaves a note at its four-tuple first: no program runs a later connection there
 * before the agent has seen this one.
 */
#ifndef TCPHA_BE_HANDOFF_H
#define TCPHA_BE_HANDOFF_H

#include "be_datagram.h"
#include "be_flow.h"

/* What a segment for a four-tuple would meet. */
enum holder { NOBODY, LISTENER, TIME_WAIT, OURS, ANOTHER };

static __always_inline int holder_of(struct __sk_buff *skb, const struct tuple *t, __u32 is_ipv6, __u32 mark)
{
	struct bpf_sock *sk = find_socket(skb, t, is_ipv6), *full;
	int holder;

	if (!sk)
		return NOBODY;
	/* One with a mark of its own hands on that one, by which nobody would know ours. */
	if (sk->state == BPF_TCP_LISTEN)
		holder = (full = bpf_sk_fullsock(sk)) && !full->mark ? LISTENER : ANOTHER;
	else if (sk->state == BPF_TCP_TIME_WAIT)
		holder = TIME_WAIT;
	else
		holder = is_ours(sk, mark) ? OURS : ANOTHER;
	bpf_sk_release(sk);
	return holder;
}

/* May the programs run this HANDOFF? Everything that is cheap comes before the tag. Returns 0 or what is counted. */
static __always_inline int objection(struct scratch *s, struct config *c, struct packet *p, struct peer **peer)
{
	struct handoff *h = &s->handoff;
	__u32 words = h->flags & FLAG_IPV6 ? WORDS_IPV6 : WORDS_IPV4;

	if (h->magic != htons(MAGIC) || h->version != VERSION || h->type != HANDOFF || h->words < words ||
	    (p->is_ipv6 && !(h->flags & FLAG_IPV6)))
		return UP_FORM;
	if (h->flags & FLAG_WINDOW_SCALE && (h->scales >> 4 > MAX_WINDOW_SCALE || (h->scales & 15) > MAX_WINDOW_SCALE))
		return UP_FORM;
	*peer = bpf_map_lookup_elem(&peers, &s->from);
	if (!*peer || (*peer)->sender != ntohs(h->sender))
		return UP_STRANGER;
	if ((*peer)->epoch != ntohl(h->epoch))
		return UP_EPOCH;
	if ((__u16)(ntohs(h->period) - c->period_from) >= c->periods)
		return UP_PERIOD;
	if (!bpf_map_lookup_elem(&targets, &s->to))
		return UP_TARGET;
	return 0;
}

/* The agent will run it, or say no. */
static __always_inline void leave_to_agent(const struct scratch *s, struct flow *flow)
{
	if (is_carried(flow))
		set_flag(flow, FLOW_UP);
	else
		begin(flow, &s->of, FLOW_AGENT);
}

/*
 * What is to be done with an authentic HANDOFF: ADOPTED, REPEATED, TOLD_AGAIN (that it is over), RECYCLED, or why it
 * goes to the agent. `flow` is what the four-tuple has had; `has_run`: a program or the agent has had this very
 * connection. A connection of ours without a socket is over, if nobody has seen its end.
 */
static __always_inline int judge(struct __sk_buff *skb, const struct scratch *s, const struct config *c,
				 const struct flow *flow, __u32 is_ipv6, int has_run)
{
	const struct handoff *h = &s->handoff;
	int same = is_same(flow, &s->of), holder;

	if (flow->flags && !same && !is_later(&s->of, &flow->of))
		return UP_OLDER;
	/* Also if it went up before it was over: a note would take the place of what its TIME-WAIT is known by. */
	if (same && (flow->flags & (FLOW_OVER | FLOW_STARTED)) == (FLOW_OVER | FLOW_STARTED))
		return TOLD_AGAIN;
	if (flow->flags & (FLOW_AGENT | FLOW_UP | FLOW_SILENT))
		return UP_OWNED;
	if (same && !is_carried(flow))
		return UP_RAN;
	/* With a TLV the front end answers for octets, and the agent has to watch them. */
	if (h->words != (is_ipv6 ? WORDS_IPV6 : WORDS_IPV4))
		return UP_FORM;
	holder = holder_of(skb, &s->name.tuple, is_ipv6, c->mark);
	if (same)
		return holder == OURS ? REPEATED : UP_RAN;
	if (has_run)
		return UP_RAN;
	if (holder == LISTENER)
		return ADOPTED;
	if (holder == TIME_WAIT)
		return skb->mark == c->retry_mark ? UP_TIME_WAIT : RECYCLED;
	return holder == NOBODY ? UP_NO_LISTENER : UP_LIVE;
}

/* Asks the kernel for a socket; 0: it will be there as soon as TCP gets the packet, which is as it was. */
static __always_inline int ask_for_socket(struct __sk_buff *skb, struct scratch *s, struct packet *p)
{
	struct bpf_sock *sk = find_socket(skb, &s->name.tuple, s->handoff.flags & FLAG_IPV6);

	if (!sk)
		return -1;
	if (sk->state != BPF_TCP_LISTEN || widen(skb, s, p)) {
		bpf_sk_release(sk);
		return -1;
	}
	return assign(skb, sk, &s->handoff);
}

/* Is there room for one more, beside those that live and those whose socket is on its way? */
static __always_inline int has_room(const struct progresses *progresses, const struct config *c)
{
	__s64 living = progresses->adopted - progresses->unmade - progresses->ended;

	return living < (__s64)c->room && living < LIVING;
}

/* Becomes a connection of the host's, or the agent's. Returns what is counted; `flow` is held. */
static __always_inline int adopt(struct __sk_buff *skb, struct scratch *s, struct packet *p, struct flow *flow,
				 void *generation, struct progresses *progresses)
{
	__u32 adopting = ADOPTING;

	if (bpf_map_update_elem(generation, &s->name, &adopting, BPF_NOEXIST)) {
		begin(flow, &s->of, FLOW_AGENT);
		return UP_FULL;
	}
	in_order(__sync_fetch_and_add(&progresses->adopted, 1));
	begin(flow, &s->of, FLOW_CARRIED | (s->handoff.flags & FLAG_CONFIRM ? FLOW_CONFIRM : 0));
	/* Before the packet is touched: where the kernel says no, the agent still gets the datagram. */
	if (ask_for_socket(skb, s, p)) {
		narrow(skb, p);
		bpf_map_delete_elem(generation, &s->name);
		clear(flow);
		begin(flow, &s->of, FLOW_AGENT);
		return UP_KERNEL;
	}
	return ADOPTED;
}

/* A SYN ends the TIME-WAIT (RFC 6191), its FIN lets the listener drop it; a clone of the datagram comes behind it. */
static __always_inline int recycle(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p,
				   __u32 request, __u64 sum)
{
	skb->mark = c->retry_mark;
	if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		UP(UP_TIME_WAIT);
	counted(RECYCLED, 0);
	skb->mark = c->mark;
	if (widen(skb, s, p) || rewrite(skb, s, p, request, sum, SYN | FIN))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return TC_ACT_UNSPEC;
}

/* An authentic HANDOFF. `slot` of `seen` held `was`; q is what it will hold when this is run. */
static __always_inline int run(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p,
			       __u64 *slot, __u64 was, __u64 q, __u32 request, __u64 sum)
{
	struct handoff *h = &s->handoff;
	struct name *name = &s->name;
	__u32 place = s->of.period & (GENERATIONS - 1);
	void *generation = bpf_map_lookup_elem(&ran, &place);
	struct progresses *progresses;
	struct flow *flow;
	__u32 zero = 0;
	int what;

	progresses = bpf_map_lookup_elem(&progress, &zero);
	if (!generation || !progresses)
		UP(UP_FULL);
	flow = hold_or_make(&name->tuple);
	if (!flow)
		UP(bpf_map_lookup_elem(&flows, &name->tuple) ? UP_BUSY : UP_FULL);
	what = judge(skb, s, c, flow, h->flags & FLAG_IPV6, !!bpf_map_lookup_elem(generation, name));
	if ((what == ADOPTED || what == RECYCLED) && !has_room(progresses, c))
		what = UP_FULL;
	if ((what == ADOPTED || what == RECYCLED) && is_carried(flow)) {
		if (flow->flags & FLOW_STARTED)
			end(&name->tuple, flow);
		else
			clear(flow);
	}
	if (what == ADOPTED) {
		what = adopt(skb, s, p, flow, generation, progresses);
	} else if (what == REPEATED) {
		if (h->flags & FLAG_CONFIRM)
			ask(flow, s->of.sender);
	} else if (what == TOLD_AGAIN) {
		tell_closed(&name->tuple, flow, progresses);
	} else if (what != RECYCLED && what != UP_OLDER && what != UP_RAN) {
		leave_to_agent(s, flow);
	}
	let_go(&name->tuple, flow);

	if (what == RECYCLED)
		return recycle(skb, s, c, p, request, sum);
	if (what != ADOPTED && what != REPEATED && what != TOLD_AGAIN)
		UP(what);
	if (__sync_val_compare_and_swap(slot, was, q) != was)
		return counted(DROPPED_RACE, TC_ACT_SHOT);
	if (what == TOLD_AGAIN)
		return counted(what, TC_ACT_SHOT);
	counted(what, 0);
	skb->mark = c->mark;
	if (widen(skb, s, p) || rewrite(skb, s, p, request, sum, request ? ACK | PSH : ACK))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return TC_ACT_UNSPEC;
}

/* What came for the agent's socket. */
static __always_inline int on_message(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p)
{
	struct udphdr *udp = p->transport;
	struct handoff *h = &s->handoff;
	struct name *name = &s->name;
	struct peer *peer = 0;
	struct key *key;
	__u32 udp_octets, covered, octets, at, is_ipv6;
	__u64 sum = 0, q, was, *slot;
	int why;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	udp_octets = ntohs(udp->len);
	s->from.port = udp->source;
	s->from.zero = 0;
	at = p->at + sizeof(*udp) + TAG_OCTETS;
	if (udp_octets < sizeof(*udp) + TAG_OCTETS + COVERED_IPV4 || p->end != p->at + udp_octets || skb->len != p->end ||
	    udp_octets > sizeof(*udp) + TAG_OCTETS + MAX_BLOCKS * BLAKE2S_BLOCK_OCTETS || skb->gso_segs > 1)
		UP(UP_FORM);
	if (!c->periods || bpf_ktime_get_coarse_ns() > c->until)
		UP(UP_OFF);
	octets = udp_octets - sizeof(*udp) - TAG_OCTETS;
	if (bpf_skb_load_bytes(skb, at, h, COVERED_IPV4))
		UP(UP_FORM);
	is_ipv6 = h->flags & FLAG_IPV6;
	covered = is_ipv6 ? COVERED_IPV6 : COVERED_IPV4;
	if (octets < covered)
		UP(UP_FORM);
	if (is_ipv6) {
		if (bpf_skb_load_bytes(skb, at, h, COVERED_IPV6))
			UP(UP_FORM);
		memcpy(&name->tuple, s->addresses, 32);
	} else {
		set_mapped(name->tuple.client, s->addresses[0]);
		set_mapped(name->tuple.virtual, s->addresses[1]);
	}
	name->tuple.client_port = h->client_port;
	name->tuple.vip_port = h->vip_port;
	s->of.irs = name->irs = ntohl(h->irs);
	s->of.iss = ntohl(h->iss);
	s->of.epoch = ntohl(h->epoch);
	s->of.sequence = ntohl(h->sequence);
	s->of.period = ntohs(h->period);
	s->of.sender = ntohs(h->sender);
	name->iss = s->of.iss & HASH_BITS;
	set_virtual(&s->to, &name->tuple);
	why = objection(s, c, p, &peer);
	if (why || !peer)
		UP(why);
	q = (__u64)s->of.epoch << 32 | s->of.sequence;
	slot = find_slot(peer->table, s->of.sequence);
	if (!slot || !is_fresh(slot, q, &was))
		UP(UP_REPLAY);
	key = find_key(h->key);
	if (!key || !is_authentic(skb, s, key, at, octets, &sum))
		UP(UP_TAG);
	/* Of the sum over everything that the tag covers, the header's part is taken away again. */
	sum += (__u32)~(is_ipv6 ? bpf_csum_diff(0, 0, h, COVERED_IPV6, 0) : bpf_csum_diff(0, 0, h, COVERED_IPV4, 0));

	return run(skb, s, c, p, slot, was, q, octets - covered, sum);
}

static __always_inline int on_datagram(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p)
{
	struct udphdr *udp = p->transport;
	int verdict;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end || udp->dest != c->own.port)
		return TC_ACT_UNSPEC;
	if ((s->to.address[0] ^ c->own.address[0]) | (s->to.address[1] ^ c->own.address[1]) |
	    (s->to.address[2] ^ c->own.address[2]) | (s->to.address[3] ^ c->own.address[3]))
		return TC_ACT_UNSPEC;
	verdict = on_message(skb, s, c, p);
	/* Nobody else is to see by which mark a clone was known. */
	if (skb->mark == c->retry_mark)
		skb->mark = 0;
	return verdict;
}

#endif
