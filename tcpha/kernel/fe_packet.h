/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers of a segment, whether it is for a virtual address, and whether its checksum is right. */
#ifndef TCPHA_FE_PACKET_H
#define TCPHA_FE_PACKET_H

#include "fe.h"

#define HOP_LIMIT 64

/* An IPv4 address in its IPv6 form has the same sum: the prefix counts 0xffff, which is nothing. */
static __always_inline __u64 pseudo_sum(const struct tuple *t, __u32 octets)
{
	return (__u64)t->client[0] + t->client[1] + t->client[2] + t->client[3] + t->virtual[0] + t->virtual[1] +
	       t->virtual[2] + t->virtual[3] + htons(octets) + htons(IPPROTO_TCP);
}

static __always_inline __u64 ipv4_sum(const __u32 *header)
{
	return (__u64)header[0] + header[1] + header[2] + header[3] + header[4];
}

/* A header without options, its checksum with it; `fragment` is the second word: identification, flags, offset. */
static __always_inline void write_ipv4(__u32 *header, __u32 octets, __u32 fragment, __u32 protocol, __be32 source,
				       __be32 destination)
{
	header[0] = htonl(0x45000000 | (sizeof(struct iphdr) + octets));
	header[1] = htonl(fragment);
	header[2] = htonl(HOP_LIMIT << 24 | protocol << 16);
	header[3] = source;
	header[4] = destination;
	header[2] |= (__u32)(__u16)~folded(ipv4_sum(header)) << 16;
}

static __always_inline void write_ipv6(__u32 *header, __u32 octets, __u32 protocol, const __u32 *source,
				       const __u32 *destination)
{
	header[0] = htonl(0x60000000);
	header[1] = htonl(octets << 16 | protocol << 8 | HOP_LIMIT);
	memcpy(header + 2, source, 16);
	memcpy(header + 6, destination, 16);
}

/*
 * Reads Ethernet, IP and TCP; 0 for a packet that is left alone: another protocol, IP options or extension headers, a
 * fragment, a VLAN tag, lengths that do not fit, a wrong IPv4 checksum, or one that is not for this host.
 */
static __always_inline int read_segment(struct __sk_buff *skb, struct tuple *t, struct segment *g)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct tcphdr *tcp;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || (void *)(eth + 1) > end)
		return 0;
	if (eth->h_proto == htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end || ip->version != 4 || ip->ihl != 5 ||
		    ip->frag_off & htons(FRAGMENT_BITS) || ip->protocol != IPPROTO_TCP)
			return 0;
		if (folded(ipv4_sum((void *)ip)) != 0xffff)
			return 0;
		set_mapped(t->client, ip->saddr);
		set_mapped(t->virtual, ip->daddr);
		g->is_ipv6 = 0;
		g->at = ETH_HLEN + sizeof(*ip);
		g->end = ETH_HLEN + ntohs(ip->tot_len);
	} else if (eth->h_proto == htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
			return 0;
		memcpy(t->client, &ip->saddr, 32);
		g->is_ipv6 = 1;
		g->at = ETH_HLEN + sizeof(*ip);
		g->end = ETH_HLEN + sizeof(*ip) + ntohs(ip->payload_len);
	} else {
		return 0;
	}
	t->client_port = tcp->source;
	t->vip_port = tcp->dest;
	g->header = tcp->doff * 4;
	g->seq = ntohl(tcp->seq);
	g->ack = ntohl(tcp->ack_seq);
	g->flags = ((__u8 *)tcp)[13];
	return g->header >= TCP_OCTETS && g->at + g->header <= g->end && g->end <= skb->len;
}

static __always_inline int is_target(struct scratch *s)
{
	set_virtual(&s->target, &s->block.tuple);
	return bpf_map_lookup_elem(&targets, &s->target) != 0;
}

static __always_inline int has_octets(const struct segment *g)
{
	return g->at + g->header != g->end;
}

/* Neither octets nor FIN. */
static __always_inline int is_bare(const struct segment *g)
{
	return !has_octets(g) && !(g->flags & FIN);
}

/* The sum of a SYN's data, 0 for more than there can be: then the checksum is wrong. */
static __noinline __u64 data_sum(struct __sk_buff *skb, struct scratch *s, __u32 at, __u32 octets)
{
	__u64 sum = 0;

	if (octets > MAX_BLOCKS * sizeof(s->data))
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_BLOCKS; i++) {
		if (octets < sizeof(s->data))
			break;
		if (bpf_skb_load_bytes(skb, at, s->data, sizeof(s->data)))
			return 0;
		sum += (__u32)bpf_csum_diff(0, 0, s->data, sizeof(s->data), 0);
		octets -= sizeof(s->data);
		at += sizeof(s->data);
	}
	if (octets && octets < sizeof(s->data)) {
		memset(s->data, 0, sizeof(s->data));
		if (bpf_skb_load_bytes(skb, at, s->data, octets))
			return 0;
		sum += (__u32)bpf_csum_diff(0, 0, s->data, sizeof(s->data), 0);
	}
	return sum;
}

/*
 * Where the sender is on this host, the field of the checksum holds only the sum of the pseudo header, and the kernel
 * knows it: then it does not change the field for octets that change.
 */
static __always_inline int is_to_be_completed(struct __sk_buff *skb, __u32 field, __be16 check, __u64 pseudo)
{
	__be16 after = 0;

	if (folded(pseudo) != check || bpf_l4_csum_replace(skb, field, 0, 1, sizeof(__u32)) ||
	    bpf_skb_load_bytes(skb, field, &after, sizeof(after)))
		return 0;
	if (after == check)
		return 1;
	bpf_skb_store_bytes(skb, field, &check, sizeof(check), 0);
	return 0;
}

/* Is the TCP checksum right? The header lies in `s` already. */
static __always_inline int is_intact(struct __sk_buff *skb, struct scratch *s, const struct segment *g, __u32 header)
{
	__u32 octets = g->end - g->at - header, field = g->at + CHECK_OFFSET;
	__u64 pseudo = pseudo_sum(&s->block.tuple, g->end - g->at), sum = pseudo;

	sum += (__u32)bpf_csum_diff(0, 0, &s->tcp, header, 0);
	if (octets)
		sum += data_sum(skb, s, g->at + header, octets);
	return folded(sum) == 0xffff || is_to_be_completed(skb, field, s->tcp.check, pseudo);
}

/* The same of a segment whose header is not read yet. */
static __noinline int is_whole(struct __sk_buff *skb, struct scratch *s, const struct segment *g)
{
	__u32 header = g->header;

	return header >= TCP_OCTETS && header <= TCP_OCTETS + MAX_OPTIONS_OCTETS &&
	       !bpf_skb_load_bytes(skb, g->at, &s->tcp, header) && is_intact(skb, s, g, header);
}

#endif
