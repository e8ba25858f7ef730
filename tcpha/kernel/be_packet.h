/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers of a packet, and which socket of this host it would meet. */
#ifndef TCPHA_BE_PACKET_H
#define TCPHA_BE_PACKET_H

#include "be.h"

/* Read from the Ethernet and IP header of a packet. */
struct packet {
	void *transport; /* the UDP or TCP header */
	__u32 is_ipv6;
	__u32 at; /* of that header */
	__u32 protocol;
	__u32 end; /* of the IP packet */
	__u32 is_widened; /* it was IPv4, and is to become IPv6 */
	__u8 tos;
	__u8 ttl;
};

/* So that clang makes no pointer with a variable offset of two with fixed ones, which the verifier knows better. */
#define hide(pointer) asm volatile("" : "+r"(pointer))

/*
 * Reads Ethernet and IP; 0 for a packet that is left alone: another protocol, IP options or extension headers, a
 * fragment, a VLAN tag, several packets in one, or one that is not for this host.
 */
static __always_inline int read_packet(struct __sk_buff *skb, struct scratch *s, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end || skb->vlan_present)
		return 0;
	if (eth->h_proto == htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & htons(FRAGMENT_BITS))
			return 0;
		set_mapped(s->from.address, ip->saddr);
		set_mapped(s->to.address, ip->daddr);
		p->transport = ip + 1;
		hide(p->transport);
		p->is_ipv6 = 0;
		p->at = ETH_HLEN + sizeof(*ip);
		p->protocol = ip->protocol;
		p->end = ETH_HLEN + ntohs(ip->tot_len);
		p->tos = ip->tos;
		p->ttl = ip->ttl;
	} else if (eth->h_proto == htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 6)
			return 0;
		memcpy(s->from.address, &ip->saddr, 16);
		memcpy(s->to.address, &ip->daddr, 16);
		p->transport = ip + 1;
		hide(p->transport);
		p->is_ipv6 = 1;
		p->at = ETH_HLEN + sizeof(*ip);
		p->protocol = ip->nexthdr;
		p->end = ETH_HLEN + sizeof(*ip) + ntohs(ip->payload_len);
	} else {
		return 0;
	}
	return 1;
}

static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, const struct tuple *t, __u32 is_ipv6)
{
	struct bpf_sock_tuple key = {};

	if (is_ipv6) {
		memcpy(key.ipv6.saddr, t->client, 16);
		memcpy(key.ipv6.daddr, t->virtual, 16);
		key.ipv6.sport = t->client_port;
		key.ipv6.dport = t->vip_port;
		return bpf_skc_lookup_tcp(skb, &key, sizeof(key.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	key.ipv4.saddr = t->client[3];
	key.ipv4.daddr = t->virtual[3];
	key.ipv4.sport = t->client_port;
	key.ipv4.dport = t->vip_port;
	return bpf_skc_lookup_tcp(skb, &key, sizeof(key.ipv4), BPF_F_CURRENT_NETNS, 0);
}

/* Is this a socket that was made here? It has inherited the mark; of TIME-WAIT only the four-tuple tells. */
static __always_inline int is_ours(struct bpf_sock *sk, __u32 mark)
{
	struct bpf_sock *full;

	if (sk->state == BPF_TCP_TIME_WAIT)
		return 1;
	if (sk->state == BPF_TCP_LISTEN)
		return 0;
	full = bpf_sk_fullsock(sk);
	return full && full->mark == mark;
}

#endif
