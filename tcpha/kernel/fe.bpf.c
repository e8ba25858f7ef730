/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front end's program: what of its work needs no decision (docs/kernel.md).
 *
 *   a SYN                         the SYN-ACK of tcpha.fe.handshake, with the cookie of tcpha.proto.cookie
 *   a handshake's bare ACK        taken out
 *   a packet of a flow in `flows` to its back end, as it is or in IP in IP (tcpha.proto.tunnel)
 *
 * What it does not want the dispatcher gets: segments by the ring `raised`, which costs a fraction of what a queue of
 * netfilter's does; all else as it is, by that queue. The program decides nothing that the dispatcher does not decide
 * alike. It enters no flow and removes none: the dispatcher's table is the authority. Where a new connection may have
 * begun on the ports of a flow it passes everything up until that has decided.
 */
#include "blake2s.h"
#include "packet.h"

#define __noinline __attribute__((noinline))

#define WAYS 1024
#define PERIOD_NS 32000000000ULL /* of a cookie: tcpha.proto.cookie */
#define HASH_BITS 0xffffff00
#define NO_WINDOW_SCALE 15
#define DEFAULT_MSS_IPV4 536
#define DEFAULT_MSS_IPV6 1220
#define STRANGE_OCTETS (1 << 23) /* tcpha.fe.flows */
#define PROOF_OCTETS (1 << 20)	 /* tcpha.fe.flows */
#define DOUBT 1000		 /* milliseconds, a little longer ones: 2^20 ns */
#define RAISED_OCTETS 2048	 /* of the largest packet that goes up by the ring */
#define SUM_OCTETS 512		 /* that bpf_csum_diff takes at once */

/* Not TC_ACT_OK: programs of others at this interface see the packet, too. */
#define PASS TC_ACT_UNSPEC

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16
#define TCP_OCTETS 20
#define CHECK_OFFSET 16
#define MAX_OPTIONS_OCTETS 40
#define HOP_LIMIT 64
#define DONT_FRAGMENT 0x4000
#define MAX_IPV4_OCTETS 65535

enum option { OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_SACK_PERMITTED, OPTION_TIMESTAMPS = 8 };

/* What became of packets for virtual addresses; tcpha/kernel/fe_maps.py has the same names in the same order. */
enum count {
	SYNS,
	HANDSHAKES,
	FORWARDED,
	TUNNELLED,
	DROPPED_FLAGS,
	DROPPED_FAULT,
	UP_OFF,
	UP_FORM,
	UP_CHECKSUM,
	UP_UNKNOWN,
	UP_HELD,
	UP_REUSED,
	UP_WAY,
	UP_TOO_BIG,
	UP_KERNEL,
	COUNTS,
};

enum { PROMISE_SACK = 1, PROMISE_TIMESTAMPS = 2 };

/* What SYN-ACKs say; the first index is 0 for IPv4 and 1 for IPv6. */
struct config {
	__u8 mac[ETH_ALEN]; /* the interface's own */
	__u8 window_scale;
	__u8 promises;
	__be16 mss[2];
	__be16 window[2][2]; /* without and with timestamps */
};

struct times {
	__u64 utc_minus_boot_ns;
	__u64 until_boot_ns; /* then nobody has renewed this for long, and cookies are left alone */
	__u64 read_until_boot_ns; /* then nobody has read the ring for long */
	__u32 first_period;  /* cookies of earlier ones are not accepted */
	__u32 zero;
};

struct key {
	__u32 chain[8]; /* BLAKE2s behind the block with the key */
	__u32 is_valid;
};

enum kind { WAY_NONE, WAY_NEIGHBOUR, WAY_TUNNEL_IPV4, WAY_TUNNEL_IPV6 };

/* How packets get to a back end. */
struct way {
	__u8 macs[2 * ETH_ALEN]; /* WAY_NEIGHBOUR: destination, source */
	__u16 kind;
	__u16 carried_octets; /* WAY_TUNNEL: of the largest packet that fits */
	__u32 ident;	      /* of the next outer IPv4 packet, its low 16 bits */
	__u32 source[4];      /* WAY_TUNNEL: of the outer packet; an IPv4 address comes first, zeros behind it */
	__u32 destination[4];
	struct endpoint backend; /* whom the way leads to: for whoever reads the map */
};

/* FLOW_HANDED: the back end gets it, but has not confirmed: the dispatcher must see what the client goes on to send. */
enum state { FLOW_FORWARDED = 1, FLOW_HELD = 2, FLOW_HANDED = 3 };

struct flow {
	__u64 last_seen_ns; /* CLOCK_MONOTONIC, to a tick */
	__u32 irs;
	__u32 iss;
	__u32 period; /* of its cookie: for whoever reads the map */
	__u32 last_ack;
	__u32 noted[2]; /* IRS + 1 of the last SYNs, the latest first */
	__u16 way;
	__u8 state;
	__u8 notes;	     /* how many of them there are */
	__u32 doubted_until; /* a new connection may have begun here; 0: none */
};

/* What a cookie's hash covers: one block, and the key of `flows` at its beginning. */
struct block {
	struct tuple tuple;
	__be32 irs;
	__be32 period;
	__u32 zero[5];
};

/* Read from the headers of a packet; offsets from the Ethernet header on. */
struct segment {
	__u32 is_ipv6;
	__u32 at;     /* of the TCP header */
	__u32 header; /* its octets, options included */
	__u32 end;    /* of the IP packet */
	__u32 seq;
	__u32 ack;
	__u32 flags;
	__u32 has_stamps; /* and which they echo: read where a cookie is checked */
	__u32 tsecr;
};

/* What goes up by the ring: a packet from its IP header on, checksums right and complete, and what is known of it. */
struct raised {
	__u32 period; /* of its cookie */
	__u32 tsecr;
	__u8 agreed;
	__u8 has_cookie; /* one that is valid; else none was looked for, or found */
	__u8 has_stamps;
	__u8 zero;
	__u8 packet[RAISED_OCTETS + SUM_OCTETS]; /* that much of it is sent */
};

#define RAISED_HEADER 12

struct offer {
	__u32 mss;
	__u32 window_scale;
	__u32 has_sack;
	__u32 has_stamps;
	__be32 tsval;
};

/* In a map: the stack is too small, and what lies in a map the verifier need not follow. */
struct scratch {
	struct block block;
	struct segment segment;
	struct endpoint target;
	__u32 chain[8];
	struct offer offer;
	struct tcphdr tcp; /* of a SYN, with its options behind it */
	__u8 options[80];
	__u32 data[16];
	__u32 reply[24];
	__u16 outer_pad;
	__be16 outer_protocol;
	__u32 outer[10];
	struct raised raised;
};

/*
 * Where headers lie in `reply`, in words: an Ethernet header and that of IPv6 or IPv4 end where TCP's begins, so that a
 * whole frame is one store.
 */
enum { REPLY_IPV6 = 4, REPLY_IPV4 = 9, REPLY_TCP = 14 };

#define PIN_BY_NAME 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct times);
} times SEC(".maps");

/* The first one makes cookies, all verify. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KEYS);
	__type(key, __u32);
	__type(value, struct key);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct endpoint);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WAYS);
	__type(key, __u32);
	__type(value, struct way);
	__uint(pinning, PIN_BY_NAME);
} ways SEC(".maps");

/* By default as many as max_flows and max_finished are together; what finds no room stays the dispatcher's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 19);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows SEC(".maps");

/* The process's own: it ends with the program. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} raised SEC(".maps");

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
#define UP(what) return counted(what, PASS)

/* An IPv4 address in its IPv6 form has the same sum: the prefix counts 0xffff, which is nothing. */
static __always_inline __u64 pseudo_sum(const struct tuple *t, __u32 octets)
{
	return (__u64)t->client[0] + t->client[1] + t->client[2] + t->client[3] + t->virtual[0] + t->virtual[1] +
	       t->virtual[2] + t->virtual[3] + htons(octets) + htons(IPPROTO_TCP);
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
		__u32 *words = (void *)ip;

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & htons(0x3fff) ||
		    ip->protocol != IPPROTO_TCP)
			return 0;
		if (folded((__u64)words[0] + words[1] + words[2] + words[3] + words[4]) != 0xffff)
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
	struct endpoint *target = &s->target;

	memcpy(target->address, s->block.tuple.virtual, 16);
	target->port = s->block.tuple.vip_port;
	target->zero = 0;
	return bpf_map_lookup_elem(&targets, target) != 0;
}

/* --- cookies */

/*
 * BLAKE2s of `block` with the number and the period; the digest's octets in memory order in `chain`. A function of its
 * own: what it spills would not fit on the stack beside what its callers do.
 */
static __noinline void hash(struct scratch *s, const struct key *key, __u32 irs, __u32 period)
{
	s->block.irs = htonl(irs);
	s->block.period = htonl(period);
	memcpy(s->chain, key->chain, sizeof(s->chain));
	blake2s_block(s->chain, (__u32 *)&s->block, 2 * BLAKE2S_BLOCK_OCTETS, 1);
}

static __always_inline __u32 tsval_of(const __u32 *chain)
{
	__u32 low = ntohl(chain[1]);

	return low ? low : 1;
}

/* The times, and the period of now; 0 if nobody has renewed them for too long. */
static __always_inline struct times *read_times(__u32 *period)
{
	__u64 boot_ns = bpf_ktime_get_boot_ns();
	__u32 zero = 0;
	struct times *found = bpf_map_lookup_elem(&times, &zero);

	if (!found || boot_ns >= found->until_boot_ns)
		return 0;
	*period = (boot_ns + found->utc_minus_boot_ns) / PERIOD_NS;
	return found;
}

/* The hash does not cover the agreement: an acknowledgement that is a little off tells another one. */
static __always_inline int may_have_agreed(const struct config *c, __u32 agreed)
{
	if (agreed & 1 && !(c->promises & PROMISE_SACK))
		return 0;
	return (agreed >> 1 & 15) == NO_WINDOW_SCALE || c->window_scale != NO_WINDOW_SCALE;
}

enum cookie { COOKIE_NONE, COOKIE_VALID, COOKIE_UNREAD, COOKIE_OFF };

/* What is the cookie of a segment that begins at IRS + 1? The order of periods and keys is that of SynCookies.check. */
static __noinline enum cookie cookie_of(struct __sk_buff *skb, struct scratch *s, struct segment *g)
{
	__u32 zero = 0, now = 0, iss = g->ack - 1;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct times *t = read_times(&now);

	if (!c || !t)
		return COOKIE_OFF;
	g->has_stamps = g->header != TCP_OCTETS;
	if (g->has_stamps) {
		__u32 *options = (void *)(long)skb->data + (g->at & 127) + TCP_OCTETS;

		if (g->header < TCP_OCTETS + TIMESTAMPS_OCTETS || (void *)(options + 3) > (void *)(long)skb->data_end ||
		    options[0] != htonl(ALIGNED_TIMESTAMPS))
			return COOKIE_UNREAD;
		g->tsecr = ntohl(options[2]);
	}
	barrier();
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 3 * KEYS; i++) {
		__u32 which = i % KEYS, step = i / KEYS, period = now - (step == 1) + (step == 2), agreed;
		struct key *key = bpf_map_lookup_elem(&keys, &which);

		if (!key || !key->is_valid)
			continue;
		hash(s, key, g->seq - 1, period);
		agreed = ntohl(s->chain[0]) ^ iss;
		if (agreed & HASH_BITS || (g->has_stamps && g->tsecr != tsval_of(s->chain)))
			continue;
		if (period < t->first_period || !may_have_agreed(c, agreed))
			return COOKIE_NONE;
		s->raised.period = period;
		s->raised.agreed = agreed;
		s->raised.has_cookie = 1;
		s->raised.has_stamps = g->has_stamps;
		s->raised.tsecr = g->tsecr;
		return COOKIE_VALID;
	}
	return COOKIE_NONE;
}

/* --- SYNs */

/* Takes note of a SYN on a known flow, as Flow.note_syn does. */
static __always_inline void note_syn(struct flow *flow, __u32 irs)
{
	__u32 first = irs + 1;

	if ((flow->notes > 0 && flow->noted[0] == first) || (flow->notes > 1 && flow->noted[1] == first))
		return;
	flow->noted[1] = flow->noted[0];
	flow->noted[0] = first;
	if (flow->notes < 2)
		flow->notes++;
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
	if (g->is_ipv6) {
		ip6[0] = htonl(0x60000000);
		ip6[1] = htonl(octets << 16 | IPPROTO_TCP << 8 | HOP_LIMIT);
		memcpy(ip6 + 2, t->virtual, 16);
		memcpy(ip6 + 6, t->client, 16);
	} else {
		ip4[0] = htonl(0x45000000 | (sizeof(struct iphdr) + octets));
		ip4[1] = htonl(DONT_FRAGMENT);
		ip4[2] = htonl(HOP_LIMIT << 24 | IPPROTO_TCP << 16);
		ip4[3] = t->virtual[3];
		ip4[4] = t->client[3];
		ip4[2] |= (__u32)(__u16)~folded((__u64)ip4[0] + ip4[1] + ip4[2] + ip4[3] + ip4[4]) << 16;
	}
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

/* --- up */

/* Does a process read the ring? */
static __always_inline int is_read(void)
{
	__u32 zero = 0;
	struct times *found = bpf_map_lookup_elem(&times, &zero);

	return found && bpf_ktime_get_boot_ns() < found->read_until_boot_ns;
}

/* The sum of the TCP segment that lies in `s->raised`, zeros behind it. */
static __noinline __u64 raised_sum(struct scratch *s, __u32 at, __u32 octets)
{
	__u64 sum = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RAISED_OCTETS / SUM_OCTETS; i++) {
		__u32 piece = octets < SUM_OCTETS ? octets + 3 & ~3 : SUM_OCTETS, from = (at & 63) + i * SUM_OCTETS;

		if (!piece || piece > SUM_OCTETS)
			break;
		sum += (__u32)bpf_csum_diff(0, 0, (__u32 *)(s->raised.packet + from), piece, 0);
		octets -= octets < piece ? octets : piece;
	}
	return sum;
}

/*
 * The packet goes to the process by the ring. What does not fit, several packets in one, a wrong checksum, and all
 * while the ring is full or not read: as it is, by netfilter's queue.
 */
static __noinline int raise(struct __sk_buff *skb, struct scratch *s, const struct segment *g)
{
	__u32 octets = g->end - ETH_HLEN, at = g->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct raised *r = &s->raised;
	struct tcphdr *tcp = (void *)(r->packet + at);
	__u64 pseudo = pseudo_sum(&s->block.tuple, octets - at), sum;

	if (skb->gso_size || octets < sizeof(struct iphdr) + TCP_OCTETS || octets > RAISED_OCTETS || !is_read() ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, octets))
		return PASS;
	r->packet[octets] = 0;
	r->packet[octets + 1] = 0;
	r->packet[octets + 2] = 0;
	sum = pseudo + raised_sum(s, at, octets - at);
	if (folded(sum) != 0xffff) {
		if (!is_to_be_completed(skb, g->at + CHECK_OFFSET, tcp->check, pseudo))
			return PASS;
		tcp->check = ~folded(sum + (__u16)~tcp->check);
	}
	return bpf_ringbuf_output(&raised, r, RAISED_HEADER + octets, 0) ? PASS : TC_ACT_SHOT;
}

#define RAISE(what) return counted(what, raise(skb, s, g))

/* --- segments */

static __always_inline int has_octets(const struct segment *g)
{
	return g->at + g->header != g->end;
}

/* Neither octets nor FIN. */
static __always_inline int is_bare(const struct segment *g)
{
	return !has_octets(g) && !(g->flags & FIN);
}

/* Does the segment begin behind a SYN that was seen? */
static __always_inline int is_noted(const struct flow *flow, __u32 seq)
{
	return (flow->notes > 0 && flow->noted[0] == seq) || (flow->notes > 1 && flow->noted[1] == seq);
}

/* Flow.is_strange: may the acknowledgement belong to another connection on the same ports? */
static __always_inline int is_strange(const struct flow *flow, __u32 ack)
{
	return ack - flow->last_ack + STRANGE_OCTETS > 2 * STRANGE_OCTETS;
}

/* Identity.resembles: is this the flow itself, acknowledging a little more? */
static __always_inline int resembles(const struct flow *flow, const struct segment *g)
{
	return g->seq - 1 == flow->irs && !(((g->ack - 1) ^ flow->iss) & HASH_BITS);
}

/*
 * Until the back end has confirmed, what the client acknowledges may be all that proves that it has the connection. Then
 * it counts only where its own octets would be, and with a right checksum, as in the core.
 */
static __always_inline int is_near(const struct flow *flow, const struct segment *g)
{
	return flow->state != FLOW_HANDED || g->seq - flow->irs - 1 <= PROOF_OCTETS;
}

/*
 * A segment may be of a new connection on the ports of a flow: until the dispatcher has decided (it writes the flow
 * anew) what follows must not overtake it. If no dispatcher lives, the flow goes on soon.
 */
static __always_inline void doubt(struct flow *flow)
{
	if (flow && !flow->doubted_until)
		flow->doubted_until = ((__u32)(bpf_ktime_get_coarse_ns() >> 20) + DOUBT) | 1;
}

/*
 * A segment is strange, or nobody can say what it is. Where no process lives to decide, a known flow goes on with it: a
 * stranger could stop it for good.
 */
static __always_inline int goes_on(const struct flow *flow)
{
	return flow && !is_read();
}

static __always_inline int is_doubted(struct flow *flow, __u32 ack)
{
	if ((__s32)(flow->doubted_until - (__u32)(bpf_ktime_get_coarse_ns() >> 20)) > 0)
		return 1;
	flow->doubted_until = 0;
	if (flow->state != FLOW_HANDED)
		flow->last_ack = ack;
	return 0;
}

/*
 * May the segment begin a connection? Of a flow that is not forwarded, or not known, only the bare ACK that ends a
 * handshake is looked at: of all others, first requests among them, the dispatcher may know more.
 */
static __always_inline int may_begin(const struct flow *flow, const struct segment *g)
{
	if ((g->flags & (ACK | RST)) != ACK)
		return 0;
	if (!flow)
		return is_bare(g);
	if (flow->state == FLOW_HELD) /* what it acknowledged last, the dispatcher knows */
		return is_bare(g) && is_noted(flow, g->seq);
	return is_noted(flow, g->seq) || is_strange(flow, g->ack);
}

/* Puts the packet into another one, and lets the host's routes and neighbours say where that goes. */
static __always_inline int send_through_tunnel(struct __sk_buff *skb, struct scratch *s, const struct segment *g,
					       struct way *way)
{
	__u32 is_outer_ipv6 = way->kind == WAY_TUNNEL_IPV6, gso = skb->gso_size, packets = skb->gso_segs, *w = s->outer;
	__u32 overhead = is_outer_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), octets = g->end - ETH_HLEN;
	__u32 protocol = g->is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	/* Of several packets that arrived as one, each must fit; and one that holds them all must be possible. */
	if (gso ? g->at - ETH_HLEN + g->header + gso > way->carried_octets || octets + overhead > MAX_IPV4_OCTETS
		: octets > way->carried_octets)
		UP(UP_TOO_BIG);
	if (skb->len != g->end && bpf_skb_change_tail(skb, g->end, 0))
		UP(UP_KERNEL);
	flags |= is_outer_ipv6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, flags))
		UP(UP_KERNEL);
	if (is_outer_ipv6) {
		s->outer_protocol = htons(ETH_P_IPV6);
		w[0] = htonl(0x60000000);
		w[1] = htonl(octets << 16 | protocol << 8 | HOP_LIMIT);
		memcpy(w + 2, way->source, 16);
		memcpy(w + 6, way->destination, 16);
	} else {
		/* It may be fragmented, so packets on this way are numbered. */
		__u32 ident = __sync_fetch_and_add(&way->ident, packets ? packets : 1) & 0xffff;

		s->outer_protocol = htons(ETH_P_IP);
		w[0] = htonl(0x45000000 | (sizeof(struct iphdr) + octets));
		w[1] = htonl(ident << 16);
		w[2] = htonl(HOP_LIMIT << 24 | protocol << 16);
		w[3] = way->source[0];
		w[4] = way->destination[0];
		w[2] |= (__u32)(__u16)~folded((__u64)w[0] + w[1] + w[2] + w[3] + w[4]) << 16;
	}
	if (bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(s->outer_protocol), &s->outer_protocol,
				sizeof(s->outer_protocol) + overhead, BPF_F_INVALIDATE_HASH))
		return counted(DROPPED_FAULT, TC_ACT_SHOT);
	return counted(TUNNELLED, bpf_redirect_neigh(skb->ifindex, 0, 0, 0));
}

/* A segment of a flow that a back end has: it goes there. */
static __always_inline int forward(struct __sk_buff *skb, struct scratch *s, const struct segment *g, struct flow *flow)
{
	__u32 number;
	struct way *way;

	flow->last_seen_ns = bpf_ktime_get_coarse_ns();
	if (g->flags & ACK && is_near(flow, g))
		flow->last_ack = g->ack;
	number = flow->way;
	way = bpf_map_lookup_elem(&ways, &number);
	if (!way)
		RAISE(UP_WAY);
	switch (way->kind) {
	case WAY_NEIGHBOUR:
		if (bpf_skb_store_bytes(skb, 0, way->macs, sizeof(way->macs), 0))
			UP(UP_KERNEL);
		return counted(FORWARDED, bpf_redirect(skb->ifindex, 0));
	case WAY_TUNNEL_IPV4:
	case WAY_TUNNEL_IPV6:
		return send_through_tunnel(skb, s, g, way);
	default:
		RAISE(UP_WAY);
	}
}

SEC("tc/ingress")
int fe_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	struct segment *g;
	struct flow *flow;

	if (!s)
		return PASS;
	g = &s->segment;
	if (!read_segment(skb, &s->block.tuple, g))
		return PASS;
	flow = bpf_map_lookup_elem(&flows, &s->block.tuple);
	if ((!flow || g->flags & SYN) && !is_target(s))
		return PASS;
	if (g->flags & SYN)
		return on_syn(skb, s, g, flow);
	s->raised.has_cookie = 0;
	if (flow && flow->doubted_until && is_doubted(flow, g->ack))
		RAISE(UP_REUSED);
	if (may_begin(flow, g)) {
		switch (cookie_of(skb, s, g)) {
		case COOKIE_VALID:
			if (flow && resembles(flow, g))
				break;
			if (is_bare(g)) /* the end of a handshake: nothing comes of it */
				return counted(HANDSHAKES, TC_ACT_SHOT);
			doubt(flow);
			RAISE(UP_REUSED);
		case COOKIE_UNREAD:
			if (goes_on(flow))
				break;
			RAISE(UP_FORM);
		case COOKIE_OFF:
			if (goes_on(flow))
				break;
			RAISE(UP_OFF);
		default:
			if (flow && is_strange(flow, g->ack) && !goes_on(flow)) {
				doubt(flow);
				RAISE(UP_REUSED);
			}
		}
	}
	if (!flow) {
		/* What looks like first octets: with a cookie the process need not look for one. */
		if (!is_bare(g) && (g->flags & (ACK | RST)) == ACK && is_read())
			cookie_of(skb, s, g);
		RAISE(UP_UNKNOWN);
	}
	if (flow->state == FLOW_HELD || (flow->state == FLOW_HANDED && has_octets(g)))
		RAISE(UP_HELD);
	if (flow->state == FLOW_HANDED && g->flags & ACK && g->ack != flow->last_ack && is_near(flow, g) &&
	    !is_whole(skb, s, g))
		UP(UP_CHECKSUM);
	return forward(skb, s, g, flow);
}

SEC("license") const char licence[] = "GPL";
