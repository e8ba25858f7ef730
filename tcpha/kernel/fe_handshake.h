/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A SYN becomes its SYN-ACK, octet for octet that of tcpha.fe.handshake, and goes back the way it came. */
#ifndef TCPHA_FE_HANDSHAKE_H
#define TCPHA_FE_HANDSHAKE_H

#include "fe_cookie.h"
#include "fe_flow.h"

#define DEFAULT_MSS_IPV4 536
#define DEFAULT_MSS_IPV6 1220
#define DONT_FRAGMENT 0x4000

enum option { OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_SACK_PERMITTED, OPTION_TIMESTAMPS = 8 };

/*
 * Where headers lie in `reply`, in words: an Ethernet header and that of IPv6 or IPv4 end where TCP's begins, so that a
 * whole frame is one store.
 */
enum { REPLY_IPV6 = 4, REPLY_IPV4 = 9, REPLY_TCP = 14 };

/* Keeps an offset inside `options`, where the verifier sees it. */
#define BOUND(offset) asm volatile("%0 &= 63" : "+r"(offset))

/* Reads a SYN's options into `s->offer`; 0 where one has an impossible length. */
static __always_inline int read_options(struct scratch *s, __u32 octets)
{
	struct offer *o = &s->offer;
	__u64 at = 0;

	o->mss = 0;
	o->window_scale = NO_WINDOW_SCALE;
	o->has_sack = 0;
	o->has_stamps = 0;
	o->tsval = 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_OPTIONS_OCTETS; i++) {
		__u8 *option, kind, length;

		if (at >= octets)
			break;
		BOUND(at);
		option = s->options + at;
		kind = option[0];
		if (kind == OPTION_END)
			break;
		if (kind == OPTION_NOP) {
			at++;
			continue;
		}
		length = option[1];
		if (at + 1 >= octets || length < 2 || at + length > octets)
			return 0;
		if (kind == OPTION_MSS) {
			if (length != 4)
				return 0;
			o->mss = (__u32)option[2] << 8 | option[3];
		} else if (kind == OPTION_WINDOW_SCALE) {
			if (length != 3)
				return 0;
			o->window_scale = option[2] > MAX_WINDOW_SCALE ? MAX_WINDOW_SCALE : option[2];
		} else if (kind == OPTION_SACK_PERMITTED) {
			if (length != 2)
				return 0;
			o->has_sack = 1;
		} else if (kind == OPTION_TIMESTAMPS) {
			if (length != 10)
				return 0;
			o->has_stamps = 1;
			memcpy(&o->tsval, option + 2, sizeof(o->tsval));
		}
		at += length;
	}
	return 1;
}

static __always_inline __u32 mss_class(__u32 mss)
{
	return mss >= 8960   ? 7
	       : mss >= 1460 ? 6
	       : mss >= 1440 ? 5
	       : mss >= 1400 ? 4
	       : mss >= 1360 ? 3
	       : mss >= 1220 ? 2
	       : mss >= 536  ? 1
			     : 0;
}

/*
 * Writes the SYN-ACK's TCP header into `s->reply`; returns its octets. In the field of the checksum stands the sum of
 * the pseudo header, and `difference` is what makes the checksum of it.
 */
static __always_inline __u32 answer_tcp(struct scratch *s, const struct config *c, const struct segment *g,
					__u32 *difference)
{
	const struct offer *o = &s->offer;
	const struct tuple *t = &s->block.tuple;
	__u32 is_scaled = o->window_scale != NO_WINDOW_SCALE && c->window_scale != NO_WINDOW_SCALE;
	__u32 has_sack = o->has_sack && c->promises & PROMISE_SACK;
	__u32 has_stamps = o->has_stamps && c->promises & PROMISE_TIMESTAMPS;
	__u32 mss = o->mss ? o->mss : g->is_ipv6 ? DEFAULT_MSS_IPV6 : DEFAULT_MSS_IPV4;
	__u32 scale = is_scaled ? o->window_scale : NO_WINDOW_SCALE, *w = s->reply + REPLY_TCP, octets = TCP_OCTETS + 4;
	__u64 whole, pseudo;

	w[0] = t->vip_port | (__u32)t->client_port << 16;
	w[1] = htonl(ntohl(s->chain[0]) ^ (mss_class(mss) << 5 | scale << 1 | has_sack));
	w[2] = htonl(g->seq + 1);
	w[5] = htonl(0x02040000) | (__u32)c->mss[g->is_ipv6 & 1] << 16;
	w[6] = 0;
	w[7] = 0;
	w[8] = 0;
	w[9] = 0;
	if (has_stamps) {
		w[6] = has_sack ? htonl(0x0402080a) : htonl(ALIGNED_TIMESTAMPS);
		w[7] = htonl(tsval_of(s->chain));
		w[8] = o->tsval;
		octets += 12;
	} else if (has_sack) {
		w[6] = htonl(0x01010402);
		octets += 4;
	}
	if (is_scaled) {
		w[has_stamps ? 9 : has_sack ? 7 : 6] = htonl(0x01030300 | c->window_scale);
		octets += 4;
	}
	w[3] = htonl(octets << 26 | (SYN | ACK) << 16) | (__u32)c->window[g->is_ipv6 & 1][has_stamps ? 1 : 0] << 16;
	pseudo = pseudo_sum(t, octets);
	whole = pseudo + w[0] + w[1] + w[2] + w[3] + w[5] + w[6] + w[7] + w[8] + w[9];
	w[4] = folded(pseudo);
	*difference = (__u32)folded(whole) + folded(pseudo);
	return octets;
}

/* Turns the SYN into its SYN-ACK and sends it back the way it came. But for a note on a known flow nothing is kept. */
static __always_inline int on_syn(struct __sk_buff *skb, struct scratch *s, const struct segment *g, struct flow *flow)
{
	__u32 zero = 0, header = g->header, period = 0, octets, field = g->at + CHECK_OFFSET, frame, difference = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct key *key = bpf_map_lookup_elem(&keys, &zero);
	struct tuple *t = &s->block.tuple;
	__u32 *ip6 = s->reply + REPLY_IPV6, *ip4 = s->reply + REPLY_IPV4;
	struct ethhdr *came, *goes;
	struct times *times;

	if (g->flags & (ACK | RST | FIN))
		return counted(DROPPED_FLAGS, TC_ACT_SHOT);
	times = read_times(&period);
	if (!c || !key || !key->is_valid || !times)
		UP(UP_OFF);
	if (header < TCP_OCTETS || header > TCP_OCTETS + MAX_OPTIONS_OCTETS ||
	    bpf_skb_load_bytes(skb, g->at, &s->tcp, header))
		UP(UP_FORM);
	if (!is_intact(skb, s, g, header))
		UP(UP_CHECKSUM);
	if (flow)
		note_syn(flow, g->seq);
	if (!read_options(s, header - TCP_OCTETS))
		UP(UP_FORM);
	if (period < times->first_period)
		period = times->first_period;
	hash(s, key, g->seq, period);
	octets = answer_tcp(s, c, g, &difference);

	barrier();
	came = (void *)(long)skb->data;
	if ((void *)(came + 1) > (void *)(long)skb->data_end)
		UP(UP_FORM);
	goes = g->is_ipv6 ? (void *)(ip6)-ETH_HLEN : (void *)(ip4)-ETH_HLEN;
	memcpy(goes->h_dest, came->h_source, ETH_ALEN);
	memcpy(goes->h_source, c->mac, ETH_ALEN);
	goes->h_proto = came->h_proto;
	if (g->is_ipv6)
		write_ipv6(ip6, octets, IPPROTO_TCP, t->virtual, t->client);
	else
		write_ipv4(ip4, octets, DONT_FRAGMENT, IPPROTO_TCP, t->virtual[3], t->client[3]);
	frame = ETH_HLEN + (g->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + octets;
	if (skb->len != frame && bpf_skb_change_tail(skb, frame, 0))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	if (bpf_skb_store_bytes(skb, 0, goes, frame, 0))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	/* The kernel knows whether the device will complete the checksum, and then leaves the field alone. */
	if (bpf_l4_csum_replace(skb, field, 0, difference, 0))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return counted(SYNS, bpf_redirect(skb->ifindex, 0));
}

#endif
