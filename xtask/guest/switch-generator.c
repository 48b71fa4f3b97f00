// A traffic generator and sink on one processor, over two DPDK ports (virtio-user front-ends):
// what `cargo xtask bench switch` loads a switch with. It prints one line of JSON.
//
//   switch-generator EAL-ARGUMENTS -- -m uni|bidir|loop|ping -s SIZE -t SECONDS -r WINDOWS
//       [-w WARM-UP] [-d DESCRIPTORS] [-b BURST] [-i INFLIGHT] [-g GAP-US] [-T] [-p SWITCH-PID]
//       [-l LABEL] [-f FLOWS] [-R KPPS]
//
// SIZE is without the frame check sequence; -T sends TCP packets for the other side to cut. Port 0
// sends to port 1 (uni). Frames are filled once, so that no payload is written again.
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <getopt.h>
#include <signal.h>
static int size = 60, desc = 256, burst = 32, reps = 3, inflight = 128, tso = 0, swpid = 0,
           gap = 100, flows = 1, rate = 0;
static double secs = 5, warm = 1;
static const char *mode = "uni", *label = "";
static struct rte_mempool *pool[2], *rxpool;
static const uint8_t MAC[2][6] = {{0x52, 0x54, 0, 0, 0, 0x0a}, {0x52, 0x54, 0, 0, 0, 0x0b}};
static volatile int stop = 0;
static void onint(int s) {
    stop = 1;
}
static double now(void) {
    return (double)rte_rdtsc() / rte_get_tsc_hz();
}
static void fill(uint8_t *d, int port, int len, uint16_t id) {
    memset(d, 0, len);
    memcpy(d, MAC[!port], 6);
    memcpy(d + 6, MAC[port], 6);
    d[12] = 8;
    d[13] = 0;
    struct rte_ipv4_hdr *ip = (void *)(d + 14);
    memset(ip, 0, 20);
    ip->version_ihl = 0x45;
    ip->total_length = rte_cpu_to_be_16(len - 14 > 65535 ? 65535 : len - 14);
    ip->time_to_live = 64;
    ip->next_proto_id = tso ? 6 : 17;
    ip->src_addr = rte_cpu_to_be_32(0x0a000001 + port);
    ip->dst_addr = rte_cpu_to_be_32(0x0a000001 + !port);
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    uint8_t *l4 = d + 34;
    l4[0] = 0x10;
    l4[1] = id & 0xff;
    l4[2] = 0x20;
    l4[3] = 0;
    if (tso) {
        struct rte_tcp_hdr *t = (void *)l4;
        t->data_off = 0x50;
        t->tcp_flags = 0x10;
        t->cksum = 0;
    } else {
        uint16_t ul = len - 34;
        l4[4] = ul >> 8;
        l4[5] = ul;
    }
    for (int i = 54; i < len; i++)
        d[i] = i;
}
static int curport;
static uint16_t seqid;
static void pinit(struct rte_mempool *mp, void *a, void *o, unsigned i) {
    struct rte_mbuf *m = o;
    uint8_t *d = (uint8_t *)m->buf_addr + RTE_PKTMBUF_HEADROOM;
    int seg = size < (int)(m->buf_len - RTE_PKTMBUF_HEADROOM)
                  ? size
                  : (int)(m->buf_len - RTE_PKTMBUF_HEADROOM);
    fill(d, curport, seg, flows > 1 ? seqid++ % flows : 0);
}
static long cputicks(int pid) {
    char p[64], b[1024];
    if (!pid)
        return 0;
    sprintf(p, "/proc/%d/stat", pid);
    FILE *f = fopen(p, "r");
    if (!f)
        return 0;
    int n = fread(b, 1, 1023, f);
    fclose(f);
    b[n] = 0;
    char *q = strrchr(b, ')');
    long u = 0, s = 0;
    sscanf(q + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &u, &s);
    return u + s;
}
static double selfcpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static inline int txb(int p, int n) {
    struct rte_mbuf *m[64];
    if (rte_pktmbuf_alloc_bulk(pool[p], m, n))
        return 0;
    for (int i = 0; i < n; i++) {
        m[i]->data_len = size;
        m[i]->pkt_len = size;
        if (tso) {
            m[i]->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
            m[i]->l2_len = 14;
            m[i]->l3_len = 20;
            m[i]->l4_len = 20;
            m[i]->tso_segsz = 1448;
        }
    }
    int s = tso ? rte_eth_tx_prepare(p, 0, m, n) : n;
    int k = rte_eth_tx_burst(p, 0, m, s);
    if (k < n)
        rte_pktmbuf_free_bulk(m + k, n - k);
    return k;
}
static int cmpd(const void *a, const void *b) {
    double x = *(double *)a, y = *(double *)b;
    return x < y ? -1 : x > y;
}
int main(int c, char **v) {
    int r = rte_eal_init(c, v);
    if (r < 0)
        return 1;
    c -= r;
    v += r;
    optind = 1;
    int o;
    while ((o = getopt(c, v, "m:s:t:r:w:d:b:i:g:Tp:l:f:R:")) != -1)
        switch (o) {
        case 'm':
            mode = optarg;
            break;
        case 's':
            size = atoi(optarg);
            break;
        case 't':
            secs = atof(optarg);
            break;
        case 'r':
            reps = atoi(optarg);
            break;
        case 'w':
            warm = atof(optarg);
            break;
        case 'd':
            desc = atoi(optarg);
            break;
        case 'b':
            burst = atoi(optarg);
            break;
        case 'i':
            inflight = atoi(optarg);
            break;
        case 'g':
            gap = atoi(optarg);
            break;
        case 'T':
            tso = 1;
            break;
        case 'p':
            swpid = atoi(optarg);
            break;
        case 'l':
            label = optarg;
            break;
        case 'f':
            flows = atoi(optarg);
            break;
        case 'R':
            rate = atoi(optarg);
            break;
        }
    signal(SIGINT, onint);
    signal(SIGTERM, onint);
    int big = size > 2000;
    int room = big ? 65535 : 2048 + 128;
    int nb = big ? 1024 : 16384;
    for (int p = 0; p < 2; p++) {
        char n[16];
        sprintf(n, "tx%d", p);
        pool[p] = rte_pktmbuf_pool_create(n, big ? 600 : 4096, 128, 0, room, 0);
        if (!pool[p]) {
            fprintf(stderr, "pool: %s\n", rte_strerror(rte_errno));
            return 1;
        }
        curport = p;
        rte_mempool_obj_iter(pool[p], pinit, 0);
    }
    rxpool = rte_pktmbuf_pool_create("rx", nb, 256, 0, big ? 4096 + 128 : 2048 + 128, 0);
    if (!rxpool) {
        fprintf(stderr, "rxpool\n");
        return 1;
    }
    for (int p = 0; p < 2; p++) {
        struct rte_eth_conf cf;
        memset(&cf, 0, sizeof cf);
        if (tso) {
            cf.txmode.offloads = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_TCP_CKSUM |
                                 RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
            cf.rxmode.offloads = RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
                                 RTE_ETH_RX_OFFLOAD_SCATTER;
        }
        if ((r = rte_eth_dev_configure(p, 1, 1, &cf))) {
            fprintf(stderr, "conf %d %s\n", p, rte_strerror(-r));
            return 1;
        }
        if ((r = rte_eth_rx_queue_setup(p, 0, desc, 0, 0, rxpool)) ||
            (r = rte_eth_tx_queue_setup(p, 0, desc, 0, 0)) || (r = rte_eth_dev_start(p))) {
            fprintf(stderr, "setup %d %s\n", p, rte_strerror(-r));
            return 1;
        }
        rte_eth_promiscuous_enable(p);
    }
    struct rte_mbuf *m[64];
    double t0 = now();
    // settle + prime MAC learning both ways
    for (int k = 0; k < 20 && !stop; k++) {
        txb(0, 1);
        txb(1, 1);
        usleep(10000);
        for (int p = 0; p < 2; p++) {
            int n = rte_eth_rx_burst(p, 0, m, 64);
            rte_pktmbuf_free_bulk(m, n);
        }
    }
    usleep(200000);
    for (int p = 0; p < 2; p++)
        for (int k = 0; k < 100; k++) {
            int n = rte_eth_rx_burst(p, 0, m, 64);
            rte_pktmbuf_free_bulk(m, n);
        }
    if (!strcmp(mode, "ping")) {
        int N = secs * 1e6 / (gap + 20);
        if (N > 200000)
            N = 200000;
        double *d = malloc(sizeof(double) * N);
        int got = 0, lost = 0;
        long c0 = cputicks(swpid);
        double T0 = now();
        for (int k = 0; k < N && !stop; k++) {
            double a = now();
            txb(0, 1);
            int ok = 0;
            while (now() - a < 0.05) {
                int n = rte_eth_rx_burst(1, 0, m, 64);
                if (n) {
                    rte_pktmbuf_free_bulk(m, n);
                    ok = 1;
                    break;
                }
            }
            if (ok)
                d[got++] = (now() - a) * 1e6;
            else
                lost++;
            double e = now() + gap / 1e6;
            while (now() < e)
                rte_pause();
        }
        double dt = now() - T0;
        long c1 = cputicks(swpid);
        qsort(d, got, sizeof(double), cmpd);
        printf("{\"label\":\"%s\",\"mode\":\"ping\",\"gap_us\":%d,\"n\":%d,\"lost\":%d,\"us_p50\":%"
               ".2f,\"us_p90\":%.2f,\"us_p99\":%.2f,\"sw_cpu_pct\":%.1f}\n",
            label, gap, got, lost, got ? d[got / 2] : 0, got ? d[got * 9 / 10] : 0,
            got ? d[got * 99 / 100] : 0, (c1 - c0) / dt);
        fflush(stdout);
        _exit(0);
    }
    uint64_t rx = 0, rb = 0, tx = 0, bad = 0, rxp[2] = {0, 0};
    int uni = !strcmp(mode, "uni"), loop = !strcmp(mode, "loop");
    double R[64], G[64], X[64], C[64], S[64];
    int st = -1;
    double tn = 0;
    uint64_t rx0 = 0, rb0 = 0, tx0 = 0, rp0[2];
    long c0 = 0;
    double s0 = 0;
    double begin = now();
    tn = begin + warm;
    uint64_t it = 0;
    if (loop)
        for (int p = 0; p < 2; p++)
            for (int k = 0; k < inflight; k += 32)
                tx += txb(p, 32);
    double iv = rate ? burst / (rate * 1e3) : 0, nx = now();
    while (!stop) {
        if (!loop) {
            if (!rate || now() >= nx) {
                tx += txb(0, burst);
                if (!uni)
                    tx += txb(1, burst);
                nx += iv;
                if (rate && nx < now() - 0.01)
                    nx = now();
            }
            for (int p = uni ? 1 : 0; p < 2; p++) {
                int n = rte_eth_rx_burst(p, 0, m, 64);
                if (n) {
                    for (int i = 0; i < n; i++) {
                        rb += m[i]->pkt_len;
                    }
                    if (m[0]->pkt_len != (unsigned)size ||
                        memcmp(rte_pktmbuf_mtod(m[0], void *), MAC[p], 6))
                        bad++;
                    rx += n;
                    rxp[p] += n;
                    for (int i = 0; i < n; i++)
                        rte_pktmbuf_free(m[i]);
                }
            }
        } else
            for (int p = 0; p < 2; p++) {
                int n = rte_eth_rx_burst(p, 0, m, 64);
                if (n) {
                    for (int i = 0; i < n; i++)
                        rb += m[i]->pkt_len;
                    rx += n;
                    rxp[p] += n;
                    int k = rte_eth_tx_burst(!p, 0, m, n);
                    if (k < n) {
                        rte_pktmbuf_free_bulk(m + k, n - k);
                        bad += n - k;
                    }
                    tx += k;
                }
            }
        if ((++it & 63) == 0) {
            double t = now();
            if (t >= tn) {
                if (st >= 0) {
                    double dt = t - (tn - secs);
                    R[st] = (rx - rx0) / dt / 1e6;
                    G[st] = (rb - rb0) * 8 / dt / 1e9;
                    X[st] = (tx - tx0) / dt / 1e6;
                    C[st] = (cputicks(swpid) - c0) / dt;
                    S[st] = 100 * (selfcpu() - s0) / dt;
                }
                if (++st >= reps)
                    break;
                rx0 = rx;
                rb0 = rb;
                tx0 = tx;
                c0 = cputicks(swpid);
                s0 = selfcpu();
                tn = t + secs;
            }
        }
    }
    double Rs[64];
    memcpy(Rs, R, sizeof R);
    qsort(Rs, st, sizeof(double), cmpd);
    qsort(G, st, sizeof(double), cmpd);
    double cs = 0, ss = 0, xs = 0;
    for (int i = 0; i < st; i++) {
        cs += C[i] / st;
        ss += S[i] / st;
        xs += X[i] / st;
    }
    if (st < 1)
        return 1;
    printf("{\"label\":\"%s\",\"mode\":\"%s\",\"size\":%d,\"tso\":%d,\"rx_mpps\":%.3f,\"min\":%.3f,"
           "\"max\":%.3f,\"gbps\":%.2f,\"tx_mpps\":%.3f,\"bad\":%lu,\"rxp\":[%lu,%lu],\"sw_cpu_"
           "pct\":%.0f,\"gen_cpu_pct\":%.0f,\"mpps_per_swcpu\":%.2f,\"all\":[",
        label, mode, size, tso, Rs[st / 2], Rs[0], Rs[st - 1], G[st / 2], xs, bad, rxp[0], rxp[1],
        cs, ss, cs > 0 ? Rs[st / 2] * 100 / cs : 0);
    for (int i = 0; i < st; i++)
        printf("%s%.3f", i ? "," : "", R[i]);
    printf("]}\n");
    fflush(stdout);
    _exit(0);
}
