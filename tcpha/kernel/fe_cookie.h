/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SYN cookie of tcpha.proto.cookie: its hash, and whether what a segment acknowledges is the cookie of its
 * four-tuple, of a period and a key that count.
 */
#ifndef TCPHA_FE_COOKIE_H
#define TCPHA_FE_COOKIE_H

#include "blake2s.h"
#include "fe.h"

#define PERIOD_NS 32000000000ULL /* of a cookie: tcpha.proto.cookie */

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

#endif
