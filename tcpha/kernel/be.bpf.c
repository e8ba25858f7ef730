/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back end's programs: a HANDOFF (docs/wire.md) becomes the client's first segment, in place, and with it the
 * kernel makes an ESTABLISHED socket of the front end's own sequence numbers for the unmodified server.
 *
 *   be_ingress   what enters the interface: HANDOFFs. Ends with the agent's process
 *   be_segments  what enters it: segments of connections that were adopted here
 *   be_egress    what leaves it: the first packet of an adopted connection proves the adoption
 *   be_claim     called by the agent: may a HANDOFF that came to it be run, or was it run already?
 *
 * Whatever the programs do not want they leave as it is, and the agent gets it, and other programs at the interface see
 * it (TC_ACT_UNSPEC): they decide nothing that the agent does not decide alike. What they must know of it lies in maps;
 * docs/kernel.md describes them.
 */
#include "blake2s.h"
#include "packet.h"

#define MAGIC 0x5448
#define VERSION 1
#define HANDOFF 1
#define TAG_OCTETS 16
#define WORDS_IPV4 17
#define WORDS_IPV6 23
#define COVERED_IPV4 (WORDS_IPV4 * 4 - TAG_OCTETS)
#define COVERED_IPV6 (WORDS_IPV6 * 4 - TAG_OCTETS)
#define MAX_WINDOW_SCALE 14
#define SLOTS 4096
#define TABLES 128
#define KEYS 2
#define GENERATIONS 8
#define MAX_BLOCKS 24 /* of a datagram: 1536 octets, so whatever an Ethernet carries */

#define PACKET_HOST 0
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_PSH 8
#define TCP_ACK 16
#define TIMESTAMPS_OCTETS 12
#define ALIGNED_TIMESTAMPS 0x0101080a

enum flag { FLAG_IPV6 = 1, FLAG_TIMESTAMPS = 2, FLAG_SACK = 4, FLAG_WINDOW_SCALE = 8, FLAG_CONFIRM = 32 };

/* What became of datagrams; tcpha/kernel/be_maps.py has the same names in the same order. */
enum count {
	ADOPTED,
	REPEATED,
	RECYCLED,
	UP_FORM,
	UP_OFF,
	UP_STRANGER,
	UP_EPOCH,
	UP_REPLAY,
	UP_TARGET,
	UP_PERIOD,
	UP_TAG,
	UP_RAN,
	UP_FULL,
	UP_LIVE,
	UP_NO_LISTENER,
	UP_TIME_WAIT,
	UP_KERNEL,
	DROPPED_RACE,
	DROPPED_FAULT,
	SEGMENTS,
	GUARDED,
	EVENTS_LOST,
	STARTED,
	SILENCED,
	COUNTS,
};

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

struct config {
	struct endpoint own; /* the agent's socket */
	__u32 mark;	     /* of everything that belongs to adopted connections */
	__u32 retry_mark;    /* of a datagram that comes a second time, behind a socket in TIME-WAIT */
	__u16 period_from;   /* cookies' periods that are accepted, their low 16 bits; the agent moves them on */
	__u16 periods;	     /* 0: nothing is adopted */
	__u64 until;	     /* CLOCK_MONOTONIC, ns: nothing is adopted after this, the agent hangs */
};

struct key {
	__u32 chain[8]; /* BLAKE2s behind the block with the key */
	__u32 number;
	__u32 is_valid;
};

struct peer {
	__u32 epoch;
	__u32 table; /* of `seen`; another one for each epoch */
	__u16 sender;
	__u16 zero;
};

/* What the hash of a cookie covers, so that it names a connection: its octet of options is left out. */
struct name {
	struct tuple tuple;
	__u32 irs;
	__u32 iss; /* bits 31 to 8 */
};

enum state { ADOPTING = 1, RAN = 2, AGENT = 3 };

/* A packet of its socket left; the agent wants an event with the next one; nothing may leave any more. */
enum { FLOW_STARTED = 1, FLOW_CONFIRM = 2, FLOW_SILENT = 4 };

/* Why else there is an event: the socket has sent RST, and is gone; another connection has its four-tuple now. */
enum { EVENT_RESET = 8, EVENT_REPLACED = 16 };

struct flow {
	__u32 irs;
	__u32 iss;
	__u16 period;
	__u16 sender;
	__u32 flags;
	__u64 cookie; /* of its socket, as socket diagnostics show it; 0 before a packet has left */
};

struct event {
	struct tuple tuple;
	__u32 irs;
	__u32 iss;
	__u32 rcv_nxt; /* the server's TCP acknowledged everything before it */
	__u16 period;
	__u16 sender;
	__u32 flags;
};

struct claim {
	__u32 table;
	__u32 epoch;
	__u32 sequence;
	__u32 is_claimed; /* out */
};

/* docs/wire.md, behind the tag; network order. */
struct handoff {
	__be16 magic;
	__u8 version;
	__u8 type;
	__u8 words;
	__u8 flags;
	__u8 scales;
	__u8 key;
	__be16 sender;
	__be16 mss;
	__be16 window;
	__be16 period;
	__be32 epoch;
	__be32 sequence;
	__be32 irs;
	__be32 iss;
	__be32 tsval_sent;
	__be32 tsval_client;
	__be16 client_port;
	__be16 vip_port;
};

struct tcp_packet {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 check;
	__be16 urgent;
	__be32 kinds;
	__be32 tsval;
	__be32 tsecr;
};

/* In a map: the stack is too small, and what lies in a map the verifier need not follow. */
struct scratch {
	struct handoff handoff;
	__u32 addresses[8]; /* behind `handoff`, as on the wire */
	struct name name;
	struct endpoint from;
	struct endpoint to;
	__u32 chain[8];
	__u32 block[16];
	__u32 tag[4];
	struct tcp_packet tcp;
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	};
	struct event event;
};

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

/* Keeps clang from making one pointer with a variable offset of two with fixed ones: the verifier knows these better. */
#define hide(pointer) asm volatile("" : "+r"(pointer))

/* What must outlive the agent: whose connections live here, and what ran. */
#define PIN_BY_NAME 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KEYS);
	__type(key, __u32);
	__type(value, struct key);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TABLES / 2);
	__type(key, struct endpoint);
	__type(value, struct peer);
} peers SEC(".maps");

/* epoch << 32 | sequence, the highest that was run; an entry of another epoch counts as none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TABLES *SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct endpoint);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows SEC(".maps");

/* Which connections ran, by the period of their cookie: one of these is thrown away whole when its cookies are over. */
struct generation {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, GENERATIONS);
	__uint(key_size, 4);
	__uint(pinning, PIN_BY_NAME);
	__array(values, struct generation); /* clang wants it last */
} ran SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#define counted(what, verdict) counted_in(&counts, what, verdict)
#define UP(what) return counted(what, TC_ACT_UNSPEC)

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

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & htons(0x3fff))
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

/*
 * A client's segment. One of a connection that was adopted here gets the mark with which it passes the agent's queue.
 * What would meet the listener does not: it would be answered by RST, whether the connection is over, or not there yet.
 */
static __always_inline int on_segment(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p)
{
	struct tcphdr *tcp = p->transport;
	struct tuple *t = &s->name.tuple;
	struct bpf_sock *sk;
	int is_held;

	if ((void *)(tcp + 1) > (void *)(long)skb->data_end || tcp->syn)
		return TC_ACT_UNSPEC;
	memcpy(t->client, s->from.address, 16);
	memcpy(t->virtual, s->to.address, 16);
	t->client_port = tcp->source;
	t->vip_port = tcp->dest;
	if (!bpf_map_lookup_elem(&flows, t))
		return TC_ACT_UNSPEC;
	sk = find_socket(skb, t, p->is_ipv6);
	if (!sk)
		return counted(GUARDED, TC_ACT_UNSPEC);
	is_held = is_ours(sk, c->mark);
	bpf_sk_release(sk);
	if (!is_held)
		return counted(GUARDED, TC_ACT_UNSPEC);
	skb->mark = c->mark;
	return counted(SEGMENTS, TC_ACT_UNSPEC);
}

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
	__u32 has_stamps = h->flags & FLAG_TIMESTAMPS, header = 20 + (has_stamps ? TIMESTAMPS_OCTETS : 0);
	__u32 before = sizeof(struct udphdr) + (p->is_ipv6 ? WORDS_IPV6 * 4 : WORDS_IPV4 * 4);
	int is_syn = flags & TCP_SYN;

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
		return bpf_skb_store_bytes(skb, p->at, tcp, 20 + TIMESTAMPS_OCTETS,
					   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
	return bpf_skb_store_bytes(skb, p->at, tcp, 20, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
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

/* Is this HANDOFF one that the programs may run? Everything that is cheap comes before the tag. Returns 0 or a count. */
static __always_inline int objection(struct scratch *s, struct config *c, struct packet *p, struct peer **peer)
{
	struct handoff *h = &s->handoff;
	__u32 words = h->flags & FLAG_IPV6 ? WORDS_IPV6 : WORDS_IPV4;

	/* With a TLV the front end answers for octets, and the agent has to watch them. */
	if (h->magic != htons(MAGIC) || h->version != VERSION || h->type != HANDOFF || h->words != words ||
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

static __always_inline int tell(struct scratch *s, const struct flow *flow, __u32 rcv_nxt, __u32 why)
{
	struct event *event = &s->event;

	event->tuple = s->name.tuple;
	event->irs = flow->irs;
	event->iss = flow->iss;
	event->rcv_nxt = rcv_nxt;
	event->period = flow->period;
	event->sender = flow->sender;
	event->flags = flow->flags | why;
	if (!bpf_ringbuf_output(&events, event, sizeof(*event), 0))
		return 1;
	counted(EVENTS_LOST, 0);
	return 0;
}

static __always_inline int on_datagram(struct __sk_buff *skb, struct scratch *s, struct config *c, struct packet *p)
{
	struct udphdr *udp = p->transport;
	struct handoff *h = &s->handoff;
	struct name *name = &s->name;
	struct flow fresh = {}, *flow;
	struct peer *peer = 0;
	struct key *key;
	struct bpf_sock *sk;
	__u32 udp_octets, covered, octets, request, at, state, *known, adopting = ADOPTING, slot_of, is_ipv6;
	__u64 sum = 0, q, was, *slot;
	void *generation;
	int why, is_refused;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end || udp->dest != c->own.port)
		return TC_ACT_UNSPEC;
	if ((s->to.address[0] ^ c->own.address[0]) | (s->to.address[1] ^ c->own.address[1]) |
	    (s->to.address[2] ^ c->own.address[2]) | (s->to.address[3] ^ c->own.address[3]))
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
	request = octets - covered;
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
	name->irs = ntohl(h->irs);
	name->iss = ntohl(h->iss) & 0xffffff00;
	memcpy(s->to.address, name->tuple.virtual, 16);
	s->to.port = h->vip_port;
	s->to.zero = 0;
	why = objection(s, c, p, &peer);
	if (why || !peer)
		UP(why);
	q = (__u64)ntohl(h->epoch) << 32 | ntohl(h->sequence);
	slot = find_slot(peer->table, ntohl(h->sequence));
	if (!slot || !is_fresh(slot, q, &was))
		UP(UP_REPLAY);
	key = find_key(h->key);
	if (!key || !is_authentic(skb, s, key, at, octets, &sum))
		UP(UP_TAG);
	/* Of the sum over everything that the tag covers, the header's part is taken away again. */
	sum += (__u32)~(is_ipv6 ? bpf_csum_diff(0, 0, h, COVERED_IPV6, 0) : bpf_csum_diff(0, 0, h, COVERED_IPV4, 0));

	slot_of = ntohs(h->period) & (GENERATIONS - 1);
	generation = bpf_map_lookup_elem(&ran, &slot_of);
	if (!generation)
		UP(UP_FULL);
	known = bpf_map_lookup_elem(generation, name);
	state = known ? *known : 0;
	flow = bpf_map_lookup_elem(&flows, &name->tuple);
	sk = find_socket(skb, &name->tuple, is_ipv6);
	if (!sk)
		UP(UP_NO_LISTENER);

	if (sk->state == BPF_TCP_LISTEN) {
		/* It ran, or nothing ever left of it: then its accept queue was full, and the agent tries or says no. */
		if (state) {
			bpf_sk_release(sk);
			UP(UP_RAN);
		}
		if (bpf_map_update_elem(generation, name, &adopting, BPF_NOEXIST)) {
			bpf_sk_release(sk);
			UP(UP_FULL);
		}
		if (flow && flow->flags & FLOW_STARTED)
			tell(s, flow, 0, EVENT_REPLACED);
		fresh.irs = name->irs;
		fresh.iss = ntohl(h->iss);
		fresh.period = ntohs(h->period);
		fresh.sender = ntohs(h->sender);
		fresh.flags = h->flags & FLAG_CONFIRM ? FLOW_CONFIRM : 0;
		if (bpf_map_update_elem(&flows, &name->tuple, &fresh, BPF_ANY)) {
			bpf_sk_release(sk);
			bpf_map_delete_elem(generation, name);
			UP(UP_FULL);
		}
		/* Before the packet is touched: where the kernel says no, the agent still gets the datagram. */
		if (widen(skb, s, p)) {
			bpf_sk_release(sk);
			is_refused = 1;
		} else {
			is_refused = assign(skb, sk, h);
		}
		if (is_refused) {
			narrow(skb, p);
			bpf_map_delete_elem(&flows, &name->tuple);
			bpf_map_delete_elem(generation, name);
			UP(UP_KERNEL);
		}
		if (__sync_val_compare_and_swap(slot, was, q) != was)
			return counted(DROPPED_RACE, TC_ACT_SHOT);
		counted(ADOPTED, 0);
	} else if (sk->state == BPF_TCP_TIME_WAIT) {
		bpf_sk_release(sk);
		if (state)
			UP(UP_RAN);
		if (skb->mark == c->retry_mark) {
			skb->mark = 0;
			UP(UP_TIME_WAIT);
		}
		/* A SYN ends the TIME-WAIT (RFC 6191), and its FIN lets the listener drop it; the clone comes behind it. */
		skb->mark = c->retry_mark;
		if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS)) {
			skb->mark = 0;
			UP(UP_TIME_WAIT);
		}
		counted(RECYCLED, 0);
		skb->mark = c->mark;
		if (widen(skb, s, p))
			return counted(DROPPED_FAULT, TC_ACT_SHOT);
		return rewrite(skb, s, p, request, sum, TCP_SYN | TCP_FIN) ? counted(DROPPED_FAULT, TC_ACT_SHOT) : TC_ACT_UNSPEC;
	} else {
		/* Our own connection again: its octets go to its TCP, which knows what to do with them. */
		int is_held = is_ours(sk, c->mark);

		bpf_sk_release(sk);
		if (!is_held || !flow || flow->irs != name->irs || flow->iss != ntohl(h->iss))
			UP(UP_LIVE);
		if (__sync_val_compare_and_swap(slot, was, q) != was)
			return counted(DROPPED_RACE, TC_ACT_SHOT);
		if (h->flags & FLAG_CONFIRM)
			__sync_fetch_and_or(&flow->flags, FLOW_CONFIRM);
		counted(REPEATED, 0);
	}
	skb->mark = c->mark;
	if (widen(skb, s, p) || rewrite(skb, s, p, request, sum, request ? TCP_ACK | TCP_PSH : TCP_ACK))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int be_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct packet p = {};

	if (!s || !c || skb->pkt_type != PACKET_HOST || !read_packet(skb, s, &p) || p.protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	return on_datagram(skb, s, c, &p);
}

SEC("tc")
int be_segments(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct packet p = {};

	if (!s || !c || skb->pkt_type != PACKET_HOST || !read_packet(skb, s, &p) || p.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	return on_segment(skb, s, c, &p);
}

/* Something leaves, so there is a socket, and it may have read the request. */
static __always_inline void note_start(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	__u32 generation_of = flow->period & (GENERATIONS - 1), state = RAN;
	void *generation = bpf_map_lookup_elem(&ran, &generation_of);

	if (flow->flags & FLOW_STARTED)
		return;
	flow->cookie = bpf_get_socket_cookie(skb);
	s->name.irs = flow->irs;
	s->name.iss = flow->iss & 0xffffff00;
	if (generation)
		bpf_map_update_elem(generation, &s->name, &state, BPF_EXIST);
	if (!(__sync_fetch_and_or(&flow->flags, FLOW_STARTED) & FLOW_STARTED))
		counted(STARTED, 0);
}

SEC("tc")
int be_egress(struct __sk_buff *skb)
{
	__u32 zero = 0, rcv_nxt;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct packet p = {};
	struct tcphdr *tcp;
	struct flow *flow;
	int is_reset;

	if (!c || !s || !c->mark || skb->mark != c->mark || !read_packet(skb, s, &p) || p.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	tcp = p.transport;
	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	memcpy(s->name.tuple.client, s->to.address, 16);
	memcpy(s->name.tuple.virtual, s->from.address, 16);
	s->name.tuple.client_port = tcp->dest;
	s->name.tuple.vip_port = tcp->source;
	flow = bpf_map_lookup_elem(&flows, &s->name.tuple);
	is_reset = tcp->rst;
	if (!flow || (flow->flags == FLOW_STARTED && !is_reset))
		return TC_ACT_UNSPEC;
	if (flow->flags & FLOW_SILENT)
		return counted(SILENCED, TC_ACT_SHOT);
	/* The host may still answer a segment of the connection before. */
	if (flow->flags & FLOW_STARTED) {
		if (is_reset && bpf_get_socket_cookie(skb) != flow->cookie)
			return TC_ACT_UNSPEC;
	} else if (ntohl(tcp->seq) != flow->iss + 1) {
		return TC_ACT_UNSPEC;
	}
	rcv_nxt = ntohl(tcp->ack_seq);
	note_start(skb, s, flow);
	if ((flow->flags & FLOW_CONFIRM || is_reset) && tell(s, flow, rcv_nxt, is_reset ? EVENT_RESET : 0))
		__sync_fetch_and_and(&flow->flags, ~FLOW_CONFIRM); /* else it is told with the next packet */
	return TC_ACT_UNSPEC;
}

SEC("syscall")
int be_claim(struct claim *claim)
{
	__u64 *slot = find_slot(claim->table, claim->sequence), q, was;

	q = (__u64)claim->epoch << 32 | claim->sequence;
	claim->is_claimed = slot && is_fresh(slot, q, &was) && __sync_val_compare_and_swap(slot, was, q) == was;
	return 0;
}

SEC("license") const char licence[] = "GPL";
