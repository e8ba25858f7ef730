/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the back end's programs know: their maps, and what lies in them. docs/kernel.md says who writes what;
 * tcpha/kernel/be_maps.py has the same for Python.
 */
#ifndef TCPHA_BE_H
#define TCPHA_BE_H

#include "packet.h"

#define MAGIC 0x5448
#define VERSION 1
#define HANDOFF 1
#define TAG_OCTETS 16
#define WORDS_IPV4 17
#define WORDS_IPV6 23
#define COVERED_IPV4 (WORDS_IPV4 * 4 - TAG_OCTETS)
#define COVERED_IPV6 (WORDS_IPV6 * 4 - TAG_OCTETS)
#define SLOTS 4096
#define TABLES 128
#define GENERATIONS 8
/*
 * How far from what was acknowledged last a number may be, and still be of this connection. RFC 7323 allows windows of
 * 2^30 octets; this is twice as much as a front end promises that scales by 7, as it does unless it is told otherwise.
 * LATE_OCTETS in tcpha/be/closing.py is the same.
 */
#define FAR_OCTETS (1 << 24)

enum flag { FLAG_IPV6 = 1, FLAG_TIMESTAMPS = 2, FLAG_SACK = 4, FLAG_WINDOW_SCALE = 8, FLAG_CONFIRM = 32 };

/* What became of datagrams; tcpha/kernel/be_maps.py has the same names in the same order. */
enum count {
	ADOPTED,
	REPEATED,
	TOLD_AGAIN,
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
	UP_OLDER,
	UP_OWNED,
	UP_BUSY,
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
	ENDED,
	COUNTS,
};

struct config {
	struct endpoint own; /* the agent's socket */
	__u32 mark;	     /* of everything that belongs to adopted connections */
	__u32 retry_mark;    /* of a datagram that comes a second time, behind a socket in TIME-WAIT */
	__u16 period_from;   /* cookies' periods that are accepted, their low 16 bits; the agent moves them on */
	__u16 periods;	     /* 0: nothing is adopted */
	__u64 until;	     /* CLOCK_MONOTONIC, ns: nothing is adopted after this, the agent hangs */
	__u64 room;	     /* for so many connections that live, but for no more than LIVING */
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

/* What `flags` of a flow say. None: the four-tuple is nobody's. */
enum flow_flag {
	FLOW_CARRIED = 1,  /* the kernel has been asked for a socket; else there is none of ours */
	FLOW_STARTED = 2,  /* the socket has been seen */
	FLOW_OVER = 4,	   /* it is gone, or in TIME-WAIT */
	FLOW_AGENT = 8,	   /* the four-tuple is the agent's; the connection is the last one that was handed over to it */
	FLOW_UP = 16,	   /* a later connection is on its way to the agent: what else is handed over goes there, too */
	FLOW_SILENT = 32,  /* the agent ends it: nothing leaves any more */
	FLOW_CONFIRM = 64, /* the front end is to be told that it is held */
	FLOW_ASKED = 128,  /* and once more, with what the server has acknowledged */
	FLOW_FIN_ARRIVING = 256,
	FLOW_FIN_ARRIVING_ACKED = 512,
	FLOW_FIN_LEAVING = 1024,
	FLOW_FIN_LEAVING_ACKED = 2048,
	FLOW_TOLD = 4096, /* the front end will be told, or was, that it is held */
};

#define FLOW_CLOSED (FLOW_FIN_ARRIVING_ACKED | FLOW_FIN_LEAVING_ACKED)

/* What tells the connections of one four-tuple apart, and which HANDOFF it was: so which of two is the later. */
struct connection {
	__u32 irs;
	__u32 iss;
	__u32 epoch;
	__u32 sequence;
	__u16 period;
	__u16 sender;
};

/* Whose a four-tuple is. Who changes that holds it (be_flow.h); a flag that is only set is set by whoever sees it. */
struct flow {
	struct connection of;
	__u32 flags;
	__u64 cookie;	    /* of its socket, as socket diagnostics show it; 0 before a packet has left */
	__u32 fin_arriving; /* what acknowledges the client's FIN */
	__u32 fin_leaving;  /* the server's */
	__u32 seen;	    /* CLOCK_MONOTONIC in units of 2^30 ns: when a packet passed last, or who holds it changed */
	__u32 held;	    /* 1: somebody changes whose it is */
	__u32 told_at;	    /* where in its journal it is told that it is held; valid with FLOW_TOLD */
	__u32 rcv_nxt;	    /* what the server has acknowledged, and sent */
	__u32 snd_nxt;
	__u16 asker;   /* sender id of the front end that asked once more; valid with FLOW_ASKED */
	__u16 doubted; /* CLOCK_MONOTONIC in units of 2^28 ns: when the agent was told to look for its socket */
};

/*
 * A connection as CLOSED and FLOWS carry it (docs/wire.md): a field FLOW, network order. Those of one family lie in a
 * journal one behind the other, so that the agent need not touch each.
 */
struct field {
	__be16 type;
	__be16 octets;
	__be32 irs;
	__be32 iss;
	__be16 client_port;
	__be16 vip_port;
	__u32 addresses[2];
};

struct long_field {
	struct field start;
	__u32 addresses[6]; /* the rest of IPv6 ones */
};

#define FIELD_FLOW 4
#define IDENTITY_OCTETS_IPV4 20
#define IDENTITY_OCTETS_IPV6 44

/* Entries of the journals; a number is its place, modulo their sizes. */
#define CLOSED_IPV4 (1 << 16)
#define CLOSED_IPV6 (1 << 15)
#define HELD_IPV4 (1 << 14)
#define HELD_IPV6 (1 << 14)

/* `flows` has room for so many beside the connections that are over: those that live, and four-tuples of the agent's. */
#define LIVING (1 << 18)
#define NOTES (1 << 16)

/* How far a journal is: what is taken and not written is being written. */
struct progress {
	__u64 taken;
	__u64 written;
	__u64 read; /* by the agent */
};

struct progresses {
	struct progress closed_ipv4;
	struct progress closed_ipv6;
	struct progress held_ipv4;
	struct progress held_ipv6;
	__u64 is_rung; /* the agent has been woken, and has not looked yet */
	__u64 started; /* connections whose socket was seen, ever */
	__u64 ended;   /* those of them that are over */
	__u64 adopted; /* connections for which the kernel was asked for a socket, ever */
	__u64 unmade;  /* those of them that never had one */
};

/* In the ring buffer. Eight octets wake the agent, to read the journals. */
struct answer {
	__u32 sender;  /* of the front end that asked; 0: a client's RST may have ended it */
	__u32 rcv_nxt; /* the server's TCP acknowledged everything before it */
	struct long_field field;
};

enum act { ACT_TAKE, ACT_RELEASE, ACT_ASK, ACT_SILENCE, ACT_END, ACT_FORGET };

/* What the agent wants done with one connection, if that is still what its four-tuple has. */
struct order {
	struct tuple tuple;
	struct connection of;
	__u32 act;
	__u32 is_done; /* out */
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
	struct connection of;
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
	struct answer answer;
};

/* Pinned is what must outlive the agent: whose connections live here, what ran, what was counted and is to be told. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
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
	__uint(max_entries, LIVING + CLOSED_IPV4 + CLOSED_IPV6 + NOTES);
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

/*
 * Journals. In those of what is closed a connection is remembered, so that a socket in TIME-WAIT gets its segments,
 * until its place is needed for another one.
 */
#define JOURNAL(name, kind, entries)               \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(max_entries, entries);      \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__type(key, __u32);                \
		__type(value, kind);               \
		__uint(pinning, PIN_BY_NAME);      \
	} name SEC(".maps")

JOURNAL(closed_ipv4, struct field, CLOSED_IPV4);
JOURNAL(closed_ipv6, struct long_field, CLOSED_IPV6);
JOURNAL(held_ipv4, struct field, HELD_IPV4);
JOURNAL(held_ipv6, struct long_field, HELD_IPV6);
/* Which front end asked, by its sender id: for each place in `held_*`. */
JOURNAL(asked_ipv4, __u64, HELD_IPV4);
JOURNAL(asked_ipv6, __u64, HELD_IPV6);
JOURNAL(progress, struct progresses, 1);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__uint(pinning, PIN_BY_NAME);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#endif
