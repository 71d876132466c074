/* The bytes of one connection; see wire.h. */
#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>

static ssize_t outcome(ssize_t put) { return put >= 0 ? put : errno == EAGAIN || errno == EINTR ? 0 : -1; }

ssize_t wire_take(struct wire *wire, char *to, size_t len) {
    if (wire->ssl == NULL) {
        /* With MSG_TRUNC the kernel drops the bytes of a TCP stream without copying them. */
        ssize_t got = to ? recv(wire->fd, to, len, 0) : recv(wire->fd, wire->discarded, len, MSG_TRUNC);
        return got > 0 ? got : got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    }
    if (to == NULL) to = wire->discarded;
    ERR_clear_error();
    int got = SSL_read(wire->ssl, to, (int)(len > TLS_READ_BYTES ? TLS_READ_BYTES : len));
    return got > 0 ? got : SSL_get_error(wire->ssl, got) == SSL_ERROR_WANT_READ ? 0 : -1;
}

ssize_t wire_give(struct wire *wire, const char *from, size_t len) {
    if (wire->ssl == NULL) return outcome(send(wire->fd, from, len, MSG_NOSIGNAL));
    ERR_clear_error();
    int put = SSL_write(wire->ssl, from, (int)(len < 1u << 30 ? len : 1u << 30));
    if (put > 0) return put;
    int error = SSL_get_error(wire->ssl, put);
    return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
}

ssize_t wire_answer(struct wire *wire, struct answer *answer, size_t *sent) {
    /* Sent from where the blob lies: the kernel's copy is the only one. sendfile from a file in memory, which makes none, was half as
     * fast, since the client then copies page by page. */
    struct slice slice = {0};
    if (answer->content) slice = content_slice(answer->content, answer->begin, answer->end - answer->begin);
    size_t text_len = answer->text.len - *sent;
    ssize_t put;
    if (wire->ssl) {
        put = text_len ? wire_give(wire, answer->text.data + *sent, text_len) : wire_give(wire, slice.data, slice.len);
    } else {
        /* Head and body together: a small blob is one system call and one packet. */
        struct iovec parts[] = {{answer->text.data + *sent, text_len}, {(char *)slice.data, slice.len}};
        put = outcome(sendmsg(wire->fd, &(struct msghdr){.msg_iov = parts, .msg_iovlen = 2}, MSG_NOSIGNAL));
    }
    if (put <= 0) return put;
    size_t text_put = (size_t)put < text_len ? (size_t)put : text_len;
    *sent += text_put;
    answer->begin += (size_t)put - text_put;
    return put;
}
