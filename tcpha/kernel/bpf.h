/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every program of this directory starts from: how maps are declared, and the kernel's helpers that are in use.
 *
 * Only the kernel's uapi headers are included, so that nothing but clang and linux-libc-dev is needed to compile. A map
 * is declared as libbpf reads it too (a struct of pointers in the section .maps, read through BTF).
 */
#ifndef TCPHA_BPF_H
#define TCPHA_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym __attribute__((section(".ksyms")))

#define __uint(name, number) int (*name)[number]
#define __type(name, kind) typeof(kind) *name
#define __array(name, kind) typeof(kind) *name[]
#define PIN_BY_NAME 1

#define memset __builtin_memset
#define memcpy __builtin_memcpy

/* The objects are little-endian (bpfel): network byte order is the other one. */
#define ntohs(x) __builtin_bswap16(x)
#define htons(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#define htonl(x) __builtin_bswap32(x)

/* Nothing is kept in registers across this line: else clang spills what it could load again. */
#define barrier() asm volatile("" ::: "memory")

#define HELPER(result, name, ...) \
	static result (*const bpf_##name)(__VA_ARGS__) __attribute__((unused)) = (void *)BPF_FUNC_##name

HELPER(void *, map_lookup_elem, const void *map, const void *key);
HELPER(long, map_update_elem, const void *map, const void *key, const void *value, __u64 flags);
HELPER(long, map_delete_elem, const void *map, const void *key);
HELPER(__u64, ktime_get_ns, void);
HELPER(__u64, ktime_get_boot_ns, void);
HELPER(__u64, ktime_get_coarse_ns, void);
HELPER(__u64, ktime_get_tai_ns, void);
HELPER(__u32, get_prandom_u32, void);
HELPER(long, skb_load_bytes, const void *skb, __u32 offset, void *to, __u32 octets);
HELPER(long, skb_store_bytes, struct __sk_buff *skb, __u32 offset, const void *from, __u32 octets, __u64 flags);
HELPER(long, skb_pull_data, struct __sk_buff *skb, __u32 octets);
HELPER(long, skb_change_tail, struct __sk_buff *skb, __u32 octets, __u64 flags);
HELPER(long, skb_adjust_room, struct __sk_buff *skb, __s32 octets, __u32 mode, __u64 flags);
HELPER(long, skb_change_proto, struct __sk_buff *skb, __be16 protocol, __u64 flags);
HELPER(__s64, csum_diff, const void *from, __u32 from_octets, const void *to, __u32 to_octets, __u32 seed);
HELPER(long, csum_level, struct __sk_buff *skb, __u64 level);
HELPER(long, l3_csum_replace, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 size);
HELPER(long, l4_csum_replace, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
HELPER(void, set_hash_invalid, struct __sk_buff *skb);
HELPER(long, clone_redirect, struct __sk_buff *skb, __u32 ifindex, __u64 flags);
HELPER(long, redirect, __u32 ifindex, __u64 flags);
HELPER(long, redirect_neigh, __u32 ifindex, struct bpf_redir_neigh *next_hop, int octets, __u64 flags);
HELPER(struct bpf_sock *, skc_lookup_tcp, void *skb, struct bpf_sock_tuple *tuple, __u32 octets, __u64 netns,
       __u64 flags);
HELPER(__u64, get_socket_cookie, struct __sk_buff *skb);
HELPER(long, sk_release, void *sk);
HELPER(struct bpf_sock *, sk_fullsock, struct bpf_sock *sk);
HELPER(struct bpf_tcp_sock *, tcp_sock, struct bpf_sock *sk);
HELPER(void *, skc_to_tcp_sock, void *sk);
HELPER(long, ringbuf_output, void *ring, const void *record, __u64 octets, __u64 flags);

#undef HELPER

#endif
