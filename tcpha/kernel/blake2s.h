/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BLAKE2s (RFC 7693): the compression function. Both programs need it, for the tag of a message and for SYN cookies.
 *
 * Keyed hashing begins with a block that holds nothing but the key, so its result is computed once, in Python
 * (tcpha.kernel.blake2s), and lies in a map: hashing begins with a copy of that chain, and 64 octets are counted
 * already.
 */
#ifndef TCPHA_BLAKE2S_H
#define TCPHA_BLAKE2S_H

#include "bpf.h"

#define BLAKE2S_BLOCK_OCTETS 64

#define BLAKE2S_TURN(x, bits) (((x) >> (bits)) | ((x) << (32 - (bits))))

#define BLAKE2S_MIX(a, b, c, d, x, y)          \
	do {                                   \
		a += b + (x);                  \
		d = BLAKE2S_TURN(d ^ a, 16);   \
		c += d;                        \
		b = BLAKE2S_TURN(b ^ c, 12);   \
		a += b + (y);                  \
		d = BLAKE2S_TURN(d ^ a, 8);    \
		c += d;                        \
		b = BLAKE2S_TURN(b ^ c, 7);    \
	} while (0)

/* The barrier makes clang load the block's words where they are needed: held in registers they would all be spilled. */
#define BLAKE2S_ROUND(m, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
	do {                                                                                   \
		barrier();                                                                     \
		BLAKE2S_MIX(v0, v4, v8, v12, m[s0], m[s1]);                                    \
		BLAKE2S_MIX(v1, v5, v9, v13, m[s2], m[s3]);                                    \
		BLAKE2S_MIX(v2, v6, v10, v14, m[s4], m[s5]);                                   \
		BLAKE2S_MIX(v3, v7, v11, v15, m[s6], m[s7]);                                   \
		BLAKE2S_MIX(v0, v5, v10, v15, m[s8], m[s9]);                                   \
		BLAKE2S_MIX(v1, v6, v11, v12, m[s10], m[s11]);                                 \
		BLAKE2S_MIX(v2, v7, v8, v13, m[s12], m[s13]);                                  \
		BLAKE2S_MIX(v3, v4, v9, v14, m[s14], m[s15]);                                  \
	} while (0)

/*
 * Mixes one block into the chain.
 *
 * chain: 8 words; the digest's octets in memory order once the last block is in. block: 16 words, as they lie in
 * memory, zeros behind the message's end. counted: octets hashed so far, with this block's and the key block's 64.
 * is_last: this is the message's last block. Chain and block belong into map values: the stack is too small to hold
 * them beside what the compiler spills.
 */
static __always_inline void blake2s_block(__u32 *chain, const __u32 *block, __u32 counted, int is_last)
{
	__u32 v0 = chain[0], v1 = chain[1], v2 = chain[2], v3 = chain[3];
	__u32 v4 = chain[4], v5 = chain[5], v6 = chain[6], v7 = chain[7];
	__u32 v8 = 0x6a09e667, v9 = 0xbb67ae85, v10 = 0x3c6ef372, v11 = 0xa54ff53a;
	__u32 v12 = 0x510e527f ^ counted, v13 = 0x9b05688c, v14 = 0x1f83d9ab, v15 = 0x5be0cd19;

	if (is_last)
		v14 = ~v14;

	BLAKE2S_ROUND(block, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	BLAKE2S_ROUND(block, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
	BLAKE2S_ROUND(block, 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
	BLAKE2S_ROUND(block, 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
	BLAKE2S_ROUND(block, 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
	BLAKE2S_ROUND(block, 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
	BLAKE2S_ROUND(block, 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
	BLAKE2S_ROUND(block, 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
	BLAKE2S_ROUND(block, 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
	BLAKE2S_ROUND(block, 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);

	chain[0] ^= v0 ^ v8;
	chain[1] ^= v1 ^ v9;
	chain[2] ^= v2 ^ v10;
	chain[3] ^= v3 ^ v11;
	chain[4] ^= v4 ^ v12;
	chain[5] ^= v5 ^ v13;
	chain[6] ^= v6 ^ v14;
	chain[7] ^= v7 ^ v15;
}

#endif
