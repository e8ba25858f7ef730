/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The datagram of a HANDOFF: its tag, its number, and the segment that it becomes. */
#ifndef TCPHA_BE_DATAGRAM_H
#define TCPHA_BE_DATAGRAM_H

#include "be_packet.h"
#include "blake2s.h"

/* The kernel's side of bpf_sk_assign_tcp_reqsk (net/core/filter.c, Linux 6.9). */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval;
	__u32 rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 ecn_ok;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 usec_ts_ok;
	__u8 reserved[3];
};

struct sock {
	int unknown; /* complete, so that libbpf finds the kernel's own by its name */
};

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *listener, struct bpf_tcp_req_attrs *attrs,
				   int octets) __ksym;

/* Compares the tag; returns whether it is right, and in `sum` the Internet checksum of what follows the header. */
static __always_inline int is_authentic(struct __sk_buff *skb, struct scratch *s, struct key *key, __u32 at,
					__u32 octets, __u64 *sum)
{
	__u32 last = (octets - 1) / BLAKE2S_BLOCK_OCTETS, rest = octets - last * BLAKE2S_BLOCK_OCTETS;
	__u32 hashed = BLAKE2S_BLOCK_OCTETS;

	if (last >= MAX_BLOCKS || rest < 1 || rest > BLAKE2S_BLOCK_OCTETS)
		return 0;
	memcpy(s->chain, key->chain, sizeof(s->chain));
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_BLOCKS; i++) {
		__u32 part = BLAKE2S_BLOCK_OCTETS;

		if (i == last) {
			memset(s->block, 0, sizeof(s->block));
			part = rest;
		}
		if (bpf_skb_load_bytes(skb, at + i * BLAKE2S_BLOCK_OCTETS, s->block, part))
			return 0;
		*sum += (__u32)bpf_csum_diff(0, 0, s->block, sizeof(s->block), 0);
		hashed += part;
		blake2s_block(s->chain, s->block, hashed, i == last);
		if (i == last)
			break;
	}
	if (bpf_skb_load_bytes(skb, at - TAG_OCTETS, s->tag, TAG_OCTETS))
		return 0;
	return !((s->tag[0] ^ s->chain[0]) | (s->tag[1] ^ s->chain[1]) | (s->tag[2] ^ s->chain[2]) |
		 (s->tag[3] ^ s->chain[3]));
}

static __always_inline struct key *find_key(__u8 number)
{
	for (__u32 i = 0; i < KEYS; i++) {
		struct key *key = bpf_map_lookup_elem(&keys, &i);

		if (key && key->is_valid && key->number == number)
			return key;
	}
	return 0;
}

/* May q = epoch << 32 | sequence be run? Then `*was` is what stands in the slot. */
static __always_inline int is_fresh(const __u64 *slot, __u64 q, __u64 *was)
{
	*was = *(volatile const __u64 *)slot;
	/* Sequences begin at 1. */
	return (__u32)q && (*was >> 32 != q >> 32 || (__u32)q > (__u32)*was);
}

static __always_inline __u64 *find_slot(__u32 table, __u32 sequence)
{
	__u32 index = table * SLOTS + (sequence & (SLOTS - 1));

	return bpf_map_lookup_elem(&seen, &index);
}

/*
 * An IPv6 connection that was handed over in an IPv4 datagram: the kernel is to take the packet for IPv6. There is room
 * for its header then, before the IPv4 header, and `narrow` makes the datagram as it was.
 */
static __always_inline int widen(struct __sk_buff *skb, struct scratch *s, struct packet *p)
{
	if (p->is_ipv6 || !(s->handoff.flags & FLAG_IPV6))
		return 0;
	if (bpf_skb_change_proto(skb, htons(ETH_P_IPV6), 0))
		return -1;
	p->is_ipv6 = p->is_widened = 1;
	p->at = ETH_HLEN + sizeof(struct ipv6hdr);
	return 0;
}

static __always_inline void narrow(struct __sk_buff *skb, struct packet *p)
{
	if (p->is_widened)
		bpf_skb_change_proto(skb, htons(ETH_P_IP), 0);
}

/*
 * Turns the datagram into a segment: what is between IP header and request octets goes, TCP header and IP header are
 * written anew, with full checksums whatever the device may compute. `sum`: of the request octets.
 */
static __always_inline int rewrite(struct __sk_buff *skb, struct scratch *s, struct packet *p, __u32 request_octets,
				   __u64 sum, __u8 flags)
{
	struct handoff *h = &s->handoff;
	struct tcp_packet *tcp = &s->tcp;
	__u32 has_stamps = h->flags & FLAG_TIMESTAMPS, header = TCP_OCTETS + (has_stamps ? TIMESTAMPS_OCTETS : 0);
	__u32 before = sizeof(struct udphdr) + (p->is_ipv6 ? WORDS_IPV6 * 4 : WORDS_IPV4 * 4);
	int is_syn = flags & SYN;

	tcp->source = h->client_port;
	tcp->dest = h->vip_port;
	tcp->seq = htonl(ntohl(h->irs) + !is_syn);
	tcp->ack = is_syn ? 0 : htonl(ntohl(h->iss) + 1);
	tcp->offset = header << 2;
	tcp->flags = flags;
	tcp->window = h->window;
	tcp->check = 0;
	tcp->urgent = 0;
	tcp->kinds = has_stamps ? htonl(ALIGNED_TIMESTAMPS) : 0;
	tcp->tsval = has_stamps ? h->tsval_client : 0;
	/* No echo: from the one that the client sent, the server's TCP would measure a round trip of next to nothing
	 * (docs/adr/0007). */
	tcp->tsecr = 0;
	/* An IPv4 address in its IPv6 form has the same sum: the prefix counts 0xffff, which is nothing. */
	sum += (__u32)bpf_csum_diff(0, 0, &s->name.tuple, 32, 0);
	sum += (__u32)bpf_csum_diff(0, 0, tcp, sizeof(*tcp), 0);
	sum += htons(header + request_octets) + htons(IPPROTO_TCP);
	tcp->check = ~folded(sum);

	if (bpf_skb_adjust_room(skb, -(__s32)(before - header), BPF_ADJ_ROOM_NET, 0))
		return -1;
	if (p->is_ipv6) {
		__be16 kind = htons(ETH_P_IPV6);

		if (p->is_widened) {
			memset(&s->ip6, 0, sizeof(s->ip6));
			*(__be32 *)&s->ip6 = htonl(6U << 28 | (__u32)p->tos << 20);
			s->ip6.hop_limit = p->ttl;
			if (bpf_skb_store_bytes(skb, ETH_HLEN - 2, &kind, sizeof(kind), 0))
				return -1;
		} else if (bpf_skb_load_bytes(skb, ETH_HLEN, &s->ip6, sizeof(s->ip6))) {
			return -1;
		}
		s->ip6.payload_len = htons(header + request_octets);
		s->ip6.nexthdr = IPPROTO_TCP;
		memcpy(&s->ip6.saddr, s->name.tuple.client, 16);
		memcpy(&s->ip6.daddr, s->name.tuple.virtual, 16);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &s->ip6, sizeof(s->ip6), BPF_F_RECOMPUTE_CSUM))
			return -1;
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &s->ip4, sizeof(s->ip4)))
			return -1;
		s->ip4.tot_len = htons(sizeof(s->ip4) + header + request_octets);
		s->ip4.protocol = IPPROTO_TCP;
		s->ip4.saddr = s->name.tuple.client[3];
		s->ip4.daddr = s->name.tuple.virtual[3];
		s->ip4.check = 0;
		s->ip4.check = ~folded((__u32)bpf_csum_diff(0, 0, &s->ip4, sizeof(s->ip4), 0));
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &s->ip4, sizeof(s->ip4), BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	if (has_stamps)
		return bpf_skb_store_bytes(skb, p->at, tcp, TCP_OCTETS + TIMESTAMPS_OCTETS,
					   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
	return bpf_skb_store_bytes(skb, p->at, tcp, TCP_OCTETS, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

/* Asks the kernel for a socket made of this packet; 0: it will be, as soon as TCP gets it. Takes `sk` over. */
static __always_inline int assign(struct __sk_buff *skb, struct bpf_sock *sk, const struct handoff *h)
{
	int is_scaled = !!(h->flags & FLAG_WINDOW_SCALE), has_stamps = !!(h->flags & FLAG_TIMESTAMPS);
	struct bpf_tcp_req_attrs attrs = {
		/* The front end's last TSval: from it this host's clock goes on. A lower one, and the client's PAWS would
		 * drop everything. */
		.rcv_tsecr = has_stamps ? ntohl(h->tsval_sent) : 0,
		.rcv_tsval = has_stamps ? ntohl(h->tsval_client) : 0,
		.mss = ntohs(h->mss),
		.snd_wscale = is_scaled ? h->scales >> 4 : 0,
		.rcv_wscale = is_scaled ? h->scales & 15 : 0,
		.wscale_ok = is_scaled,
		.sack_ok = !!(h->flags & FLAG_SACK),
		.tstamp_ok = has_stamps,
	};
	struct sock *listener = bpf_skc_to_tcp_sock(sk);
	int refused = listener ? bpf_sk_assign_tcp_reqsk(skb, listener, &attrs, sizeof(attrs)) : -1;

	bpf_sk_release(sk);
	return refused;
}

#endif
