/* A blob service that forgets: it takes requests as fast as the machine can and throws their bodies away, or keeps them in memory
 * and gives them out as fast.
 *
 *     nullserver [--port N] [--latency-ms F] [--threads N] [--cert FILE --key FILE] [--keep 1]
 *
 * Prints "listening on PORT" when it answers, and ends with its standard input or with a signal. GET /_stats shows counters,
 * GET /_reset forgets everything. Answers wait in a queue until their time has come; nothing ever blocks a thread but epoll.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES_MAX (32 << 10)
#define DISCARD_BYTES (4u << 20)
#define TURNS_MAX 64 /* how often one connection is served before the others have their turn */
#define THREADS_MAX 16
#define EVENTS_MAX 256

enum state { SHAKING, READING_HEAD, READING_BODY, WAITING, SENDING };

struct worker;

struct connection {
    struct wire wire;
    struct worker *worker;
    enum state state;
    uint32_t events;   /* what epoll was asked for */
    int is_lost;       /* the client went away while its answer waited */
    int is_again;      /* in the worker's list of those that epoll does not see */
    struct request request;
    char in[HEAD_BYTES_MAX];
    size_t in_len, head_len, body_left, kept_len;
    struct body *kept; /* the body, where the answer depends on it or it is kept */
    struct answer answer;
    size_t sent;       /* of the answer's text */
    int64_t due_ns;
    struct connection *next_due, *next_again;
};

struct worker {
    int epoll;
    pthread_t thread;
    struct connection *due_first, *due_last; /* one latency for all, so the queue is in order */
    struct connection *again;                /* have bytes inside OpenSSL that epoll does not see */
    char discarded[TLS_READ_BYTES];
};

static struct worker workers[THREADS_MAX];
static int thread_count = 1, listener;
static int64_t latency_ns;
static SSL_CTX *tls;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "nullserver: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- one connection's turn: each step returns 1 to go on, 0 when it has to wait, -1 when the connection has ended ---- */

static void ask_for(struct connection *c, uint32_t events) {
    if (c->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(c->worker->epoll, EPOLL_CTL_MOD, c->wire.fd, &event);
    c->events = events;
}

static void drop(struct connection *c) {
    if (c->wire.ssl) SSL_free(c->wire.ssl);
    close(c->wire.fd);
    body_drop(c->kept);
    content_drop(c->answer.content);
    free(c->answer.text.data);
    free(c);
}

static int shake(struct connection *c) {
    ERR_clear_error();
    int done = SSL_accept(c->wire.ssl);
    if (done == 1) {
        c->state = READING_HEAD;
        return 1;
    }
    int error = SSL_get_error(c->wire.ssl, done);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static int begin_body(struct connection *c) {
    static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (c->request.is_chunked) return -1; /* no client of the benchmarks sends one, and a wrong count must not pass unseen */
    size_t kept_max = service_keeps_body(&c->request), there = c->in_len - c->head_len;
    if (there > c->request.body_len) there = c->request.body_len;
    c->body_left = c->request.body_len - there;
    c->kept_len = 0;
    if (kept_max) {
        c->kept = body_make(kept_max);
        memcpy(c->kept->data, c->in + c->head_len, there);
        c->kept_len = there;
    }
    /* Bytes of the next request, should a client send ahead, move to where this body began. */
    memmove(c->in + c->head_len, c->in + c->head_len + there, c->in_len - c->head_len - there);
    c->in_len -= there;
    c->state = READING_BODY;
    return c->request.wants_continue && c->body_left ? (wire_give(&c->wire, CONTINUE, sizeof CONTINUE - 1) > 0 ? 1 : -1) : 1;
}

static int read_head(struct connection *c) {
    long head_len = c->in_len ? parse_head(c->in, c->in_len, &c->request) : 0;
    if (head_len < 0 || (head_len == 0 && c->in_len == HEAD_BYTES_MAX)) return -1;
    if (head_len) {
        c->head_len = (size_t)head_len;
        return begin_body(c);
    }
    ssize_t got = wire_take(&c->wire, c->in + c->in_len, HEAD_BYTES_MAX - c->in_len);
    if (got > 0) c->in_len += (size_t)got;
    return got > 0 ? 1 : (int)got;
}

static void finish_request(struct connection *c) {
    c->answer.text.len = c->answer.begin = c->answer.end = c->sent = 0;
    int is_at_once = service_answer(&c->request, c->kept, &c->answer) || latency_ns == 0;
    body_drop(c->kept);
    c->kept = NULL;
    if (is_at_once) {
        c->state = SENDING;
        return;
    }
    c->state = WAITING;
    c->due_ns = now_ns() + latency_ns;
    c->next_due = NULL;
    if (c->worker->due_last) c->worker->due_last->next_due = c;
    else c->worker->due_first = c;
    c->worker->due_last = c;
}

static int read_body(struct connection *c) {
    if (c->body_left == 0) {
        finish_request(c);
        return 1;
    }
    size_t asked = c->kept || c->body_left < DISCARD_BYTES ? c->body_left : DISCARD_BYTES;
    ssize_t got = wire_take(&c->wire, c->kept ? c->kept->data + c->kept_len : NULL, asked);
    if (got <= 0) return (int)got;
    c->body_left -= (size_t)got;
    c->kept_len += (size_t)got;
    /* A short read has emptied the socket: epoll tells when there is more, and asking again would only cost a call. */
    return c->wire.ssl || (size_t)got == asked ? 1 : 0;
}

static int send_answer(struct connection *c) {
    if (c->sent < c->answer.text.len || c->answer.begin < c->answer.end) {
        ssize_t put = wire_answer(&c->wire, &c->answer, &c->sent);
        if (put == 0) ask_for(c, EPOLLOUT);
        return put > 0 ? 1 : (int)put;
    }
    if (c->answer.content) service_sent();
    content_drop(c->answer.content);
    c->answer.content = NULL;
    if (c->request.wants_close) return -1;
    memmove(c->in, c->in + c->head_len, c->in_len - c->head_len);
    c->in_len -= c->head_len;
    c->state = READING_HEAD;
    ask_for(c, EPOLLIN);
    /* The next request has mostly not been written yet. Inside OpenSSL, though, it may be waiting unseen. */
    return c->wire.ssl || c->in_len ? 1 : 0;
}

static void serve(struct connection *c) {
    static int (*const STEPS[])(struct connection *) = {shake, read_head, read_body, NULL, send_answer};
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        if (c->state == WAITING) return;
        int step = STEPS[c->state](c);
        if (step < 0) {
            drop(c);
            return;
        }
        if (step == 0) return;
    }
    if (c->state == SENDING) ask_for(c, EPOLLOUT); /* the socket takes more, so epoll comes back to it after the others */
    else if (c->wire.ssl && c->state != WAITING) {
        c->is_again = 1;
        c->next_again = c->worker->again;
        c->worker->again = c;
    }
}

/* ---- the loop ---- */

static void add_connection(int fd) {
    static int turn;
    int one = 1;
    struct connection *c = malloc(sizeof *c);
    memset(c, 0, offsetof(struct connection, in));
    c->in_len = c->head_len = c->body_left = c->kept_len = c->sent = 0;
    c->kept = NULL;
    c->answer = (struct answer){0};
    c->next_due = c->next_again = NULL;
    c->wire.fd = fd;
    c->state = READING_HEAD;
    c->events = EPOLLIN;
    c->worker = &workers[turn++ % thread_count];
    c->wire.discarded = c->worker->discarded;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (tls) {
        c->wire.ssl = SSL_new(tls);
        SSL_set_fd(c->wire.ssl, fd);
        c->state = SHAKING;
    }
    service_counts_connection();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(c->worker->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void serve_due(struct worker *w) {
    while (w->due_first && w->due_first->due_ns <= now_ns()) {
        struct connection *c = w->due_first;
        w->due_first = c->next_due;
        if (w->due_first == NULL) w->due_last = NULL;
        if (c->is_lost) {
            drop(c);
            continue;
        }
        c->state = SENDING;
        serve(c);
    }
}

static void serve_again(struct worker *w) {
    struct connection *c = w->again, *next;
    w->again = NULL;
    for (; c; c = next) {
        next = c->next_again;
        c->is_again = 0;
        serve(c);
    }
}

static void serve_event(struct connection *c, uint32_t events) {
    if (c->is_again) return; /* serve_again does, once: it may end the connection */
    if (c->state != WAITING) {
        serve(c);
        return;
    }
    /* Nothing is read before the answer is out; epoll would report it over and over. */
    if (events & (EPOLLHUP | EPOLLERR)) {
        c->is_lost = 1;
        epoll_ctl(c->worker->epoll, EPOLL_CTL_DEL, c->wire.fd, NULL);
    } else {
        ask_for(c, 0);
    }
}

static void *work(void *argument) {
    struct worker *w = argument;
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int64_t left = w->again ? 0 : w->due_first ? w->due_first->due_ns - now_ns() : -1;
        if (left < 0 && (w->again || w->due_first)) left = 0;
        struct timespec timeout = {left / 1000000000, left % 1000000000};
        int count = epoll_pwait2(w->epoll, events, EVENTS_MAX, left < 0 ? NULL : &timeout, NULL);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                serve_event(events[i].data.ptr, events[i].events);
                continue;
            }
            for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) add_connection(fd);
        }
        serve_again(w);
        serve_due(w);
    }
    return NULL;
}

/* ---- start ---- */

static void open_tls(const char *certificate, const char *key) {
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 || SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Several records a system call; one by one the calls cost more than the decryption. */
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, 256 << 10);
}

static int open_listener(int port) {
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &len);
    return ntohs(address.sin_port);
}

int main(int count, char **words) {
    int port = 0;
    const char *certificate = NULL, *key = NULL;
    for (int i = 1; i + 1 < count; i += 2) {
        if (strcmp(words[i], "--port") == 0) port = atoi(words[i + 1]);
        else if (strcmp(words[i], "--latency-ms") == 0) latency_ns = (int64_t)(atof(words[i + 1]) * 1e6);
        else if (strcmp(words[i], "--threads") == 0) thread_count = atoi(words[i + 1]);
        else if (strcmp(words[i], "--cert") == 0) certificate = words[i + 1];
        else if (strcmp(words[i], "--key") == 0) key = words[i + 1];
        else if (strcmp(words[i], "--keep") == 0 && atoi(words[i + 1])) service_keeps_all();
        else errno = EINVAL, fail(words[i]);
    }
    if (thread_count < 1 || thread_count > THREADS_MAX) errno = EINVAL, fail("--threads");
    signal(SIGPIPE, SIG_IGN);
    if (certificate && key) open_tls(certificate, key);
    port = open_listener(port);
    for (int i = 0; i < thread_count; i++) workers[i].epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(workers[0].epoll, EPOLL_CTL_ADD, listener, &event);
    for (int i = 0; i < thread_count; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) fail("thread");
    printf("listening on %d\n", port);
    fflush(stdout);
    /* Whoever started it holds the other end: when that process dies, however it dies, so does the server. */
    char nothing[64];
    while (read(STDIN_FILENO, nothing, sizeof nothing) > 0) {}
    return 0;
}
