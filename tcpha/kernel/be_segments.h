/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segments of connections that were adopted here: those that arrive get the mark, and both ways tell of the end. */
#ifndef TCPHA_BE_SEGMENTS_H
#define TCPHA_BE_SEGMENTS_H

#include "be_flow.h"

/* Has the client aborted? Its RST counts where the socket believes it (RFC 5961, 3.2). */
static __always_inline int is_believed_reset(struct bpf_sock *sk, const struct flow *flow, const struct tcphdr *tcp)
{
	struct bpf_sock *full = bpf_sk_fullsock(sk);
	struct bpf_tcp_sock *socket = full ? bpf_tcp_sock(full) : 0;

	__u32 rcv_nxt = flow->rcv_nxt, state = sk->state;

	/* One in TIME-WAIT, or FIN-WAIT-2 without a server, does not show its numbers: it has acknowledged what came. */
	barrier();
	if (socket)
		rcv_nxt = socket->rcv_nxt;
	if (ntohl(tcp->seq) == rcv_nxt)
		return 1;
	/* Also one that leaves the client's FIN out: it answers what left before the FIN came. */
	return ntohl(tcp->seq) + 1 == rcv_nxt &&
	       (state == BPF_TCP_CLOSE_WAIT || state == BPF_TCP_LAST_ACK || state == BPF_TCP_CLOSING);
}

/*
 * May a FIN be the client's? Not one that ends before what the server has acknowledged, or too far beyond; and once a
 * FIN was acknowledged there is no other.
 */
static __always_inline int is_plausible_fin(const struct flow *flow, __u32 end)
{
	return !(flow->flags & FLOW_FIN_ARRIVING_ACKED) && end - flow->rcv_nxt < FAR_OCTETS;
}

static __always_inline void note_arriving(struct scratch *s, struct flow *flow, const struct tcphdr *tcp, __u32 octets)
{
	__u32 end = ntohl(tcp->seq) + octets + 1;

	if (tcp->fin && is_plausible_fin(flow, end)) {
		flow->fin_arriving = end;
		set_flag(flow, FLOW_FIN_ARRIVING);
	}
	/* Nothing follows a FIN, so only its very number acknowledges it. */
	if (flow->flags & FLOW_FIN_LEAVING && tcp->ack && ntohl(tcp->ack_seq) == flow->fin_leaving) {
		set_flag(flow, FLOW_FIN_LEAVING_ACKED);
		end_if_closed(s, flow);
	}
}

static __always_inline void note_leaving(struct scratch *s, struct flow *flow, const struct tcphdr *tcp, __u32 octets)
{
	if (tcp->fin) {
		flow->fin_leaving = ntohl(tcp->seq) + octets + 1;
		set_flag(flow, FLOW_FIN_LEAVING);
	}
	if (!(flow->flags & FLOW_FIN_ARRIVING))
		return;
	if (ntohl(tcp->ack_seq) == flow->fin_arriving) {
		set_flag(flow, FLOW_FIN_ARRIVING_ACKED);
		end_if_closed(s, flow);
	} else if (flow->flags & FLOW_FIN_ARRIVING_ACKED) {
		/* Octets may have taken its place: then the server's TCP has not believed it. */
		in_order(__sync_fetch_and_and(&flow->flags, ~FLOW_FIN_ARRIVING_ACKED));
	}
}

/* May a packet belong to a connection that is over, rather than to the next one on its ports? */
static __always_inline int is_late(const struct flow *flow, const struct tcphdr *tcp)
{
	__s32 behind = flow->rcv_nxt - ntohl(tcp->seq), distance = ntohl(tcp->ack_seq) - flow->snd_nxt;

	return behind >= 0 && behind < FAR_OCTETS && tcp->ack && distance > -FAR_OCTETS && distance < FAR_OCTETS;
}

/*
 * A client's RST that may have ended it, or not: what came before it may still wait for the socket's owner, and SACK
 * makes another number right. The agent looks, four times a second at most, however many come.
 */
static __always_inline void doubt(struct scratch *s, struct flow *flow)
{
	__u16 now = bpf_ktime_get_coarse_ns() >> DOUBTED_SHIFT;

	if (flow->doubted != now && !answer(s, flow, 0, 0))
		flow->doubted = now;
}

/* How far the server has acknowledged is told if it was asked for, at the next packet if there is no room now. */
static __always_inline void answer_if_asked(struct scratch *s, struct flow *flow, __u32 rcv_nxt)
{
	if (!(flow->flags & FLOW_ASKED) || !(__sync_fetch_and_and(&flow->flags, ~FLOW_ASKED) & FLOW_ASKED))
		return;
	if (answer(s, flow, flow->asker, rcv_nxt))
		set_flag(flow, FLOW_ASKED);
}

static __always_inline void note_seen(struct flow *flow)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> SEEN_SHIFT;

	if (flow->seen != now)
		flow->seen = now;
}

/*
 * A client's segment. One of a connection that was adopted here gets the mark with which it passes the agent's queue.
 * What would meet the listener does not, or it would be answered by RST while its connection is not there yet; unless
 * that is over, and a client that goes on has to be told.
 */
static __always_inline int on_arriving(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p)
{
	struct tcphdr *tcp = p->transport;
	struct tuple *t = &s->name.tuple;
	struct bpf_sock *sk;
	struct flow *flow;
	int is_held, is_reset, is_open;
	__u32 header, octets;

	if ((void *)(tcp + 1) > (void *)(long)skb->data_end || tcp->syn)
		return TC_ACT_UNSPEC;
	memcpy(t->client, s->from.address, 16);
	memcpy(t->virtual, s->to.address, 16);
	t->client_port = tcp->source;
	t->vip_port = tcp->dest;
	flow = bpf_map_lookup_elem(&flows, t);
	if (!flow || !(flow->flags & FLOW_CARRIED))
		return TC_ACT_UNSPEC;
	sk = find_socket(skb, t, p->is_ipv6);
	if (!sk)
		return counted(GUARDED, TC_ACT_UNSPEC);
	is_held = is_ours(sk, c->mark);
	is_open = sk->state != BPF_TCP_TIME_WAIT;
	is_reset = is_held && tcp->rst && is_believed_reset(sk, flow, tcp);
	if (sk->state == BPF_TCP_LISTEN && flow->flags & FLOW_OVER)
		is_held = is_late(flow, tcp);
	bpf_sk_release(sk);
	if (!is_held)
		return counted(GUARDED, TC_ACT_UNSPEC);
	skb->mark = c->mark;
	if (flow->flags & FLOW_OVER)
		return counted(SEGMENTS, TC_ACT_UNSPEC);
	note_seen(flow);
	/* Where its answers leave by another interface nobody else tells. */
	if (is_open)
		start(s, flow);
	if (!(flow->flags & FLOW_STARTED))
		return counted(SEGMENTS, TC_ACT_UNSPEC);
	header = tcp->doff * 4;
	octets = p->end - p->at - header;
	if (header < sizeof(*tcp) || (__s32)octets < 0)
		return counted(SEGMENTS, TC_ACT_UNSPEC);
	if (is_reset)
		end(t, flow);
	else if (tcp->rst)
		doubt(s, flow);
	else
		note_arriving(s, flow, tcp, octets);
	return counted(SEGMENTS, TC_ACT_UNSPEC);
}

/* Has the server aborted? An RST may be the socket's own, or the host's, which has none any more. */
static __always_inline int is_end_of_socket(struct __sk_buff *skb, struct scratch *s, const struct flow *flow,
					    __u32 is_ipv6)
{
	struct bpf_sock *sk;
	int is_gone;

	if (flow->cookie && bpf_get_socket_cookie(skb) == flow->cookie)
		return 1;
	sk = find_socket(skb, &s->name.tuple, is_ipv6);
	if (!sk)
		return 1;
	is_gone = sk->state == BPF_TCP_LISTEN || sk->state == BPF_TCP_TIME_WAIT;
	bpf_sk_release(sk);
	return is_gone;
}

/* A server's segment. The first one proves the adoption. */
static __always_inline int on_leaving(struct __sk_buff *skb, struct scratch *s, struct packet *p)
{
	struct tcphdr *tcp = p->transport;
	struct flow *flow;
	__u32 octets;

	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	memcpy(s->name.tuple.client, s->to.address, 16);
	memcpy(s->name.tuple.virtual, s->from.address, 16);
	s->name.tuple.client_port = tcp->dest;
	s->name.tuple.vip_port = tcp->source;
	flow = bpf_map_lookup_elem(&flows, &s->name.tuple);
	if (!flow || flow->flags & FLOW_OVER)
		return TC_ACT_UNSPEC;
	if (flow->flags & (FLOW_SILENT | FLOW_AGENT))
		return counted(SILENCED, TC_ACT_SHOT);
	/* The host may still answer a segment of the connection before. */
	if (!(flow->flags & FLOW_CARRIED) || (!(flow->flags & FLOW_STARTED) && ntohl(tcp->seq) != flow->of.iss + 1))
		return TC_ACT_UNSPEC;
	note_seen(flow);
	start(s, flow);
	if (tcp->rst) {
		if (is_end_of_socket(skb, s, flow, p->is_ipv6))
			end(&s->name.tuple, flow);
		return TC_ACT_UNSPEC;
	}
	if (!flow->cookie)
		flow->cookie = bpf_get_socket_cookie(skb);
	/* Not what the IP header says: a packet that the interface will cut up may be longer than that can tell. */
	octets = skb->len - p->at - tcp->doff * 4;
	flow->rcv_nxt = ntohl(tcp->ack_seq);
	flow->snd_nxt = ntohl(tcp->seq) + octets;
	note_leaving(s, flow, tcp, octets);
	answer_if_asked(s, flow, ntohl(tcp->ack_seq));
	return TC_ACT_UNSPEC;
}

#endif
