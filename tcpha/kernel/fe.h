/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the front end's program knows: its maps, and what lies in them. docs/kernel.md says who writes what;
 * tcpha/kernel/fe_maps.py has the same for Python.
 */
#ifndef TCPHA_FE_H
#define TCPHA_FE_H

#include "packet.h"

#define WAYS 1024
#define NO_WINDOW_SCALE 15
#define RAISED_OCTETS 2048 /* of the largest packet that goes up by the ring */
#define SUM_OCTETS 512	   /* that bpf_csum_diff takes at once */

#define CHECK_OFFSET 16
#define MAX_OPTIONS_OCTETS 40

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
	__u32 doubted_until; /* CLOCK_MONOTONIC in units of 2^20 ns: a new connection may have begun here; 0: none */
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

#endif
